package tenure

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"
)

// State is where a lease stands.
type State string

// The states of a lease. A suspect one may be held again, or lost.
const (
	StateHeld     State = "held"
	StateSuspect  State = "suspect"
	StateLost     State = "lost"
	StateReleased State = "released"
)

// Lease is something held through a client: a [Lock], an [Office] or a [Membership].
type Lease struct {
	client  *Client
	what    string
	release string
	name    string
	granted granted

	mu        sync.Mutex
	state     State
	err       error
	listeners []func(State)
	lost      chan struct{}
	over      bool
}

type granted struct {
	Lease       string `json:"lease"`
	Fence       uint64 `json:"fence"`
	Candidate   string `json:"candidate"`
	ID          string `json:"id"`
	Revision    uint64 `json:"revision"`
	WaitedMs    int64  `json:"waited_ms"`
	RemainingMs int64  `json:"remaining_ms"`
	LeaseMs     int64  `json:"lease_ms"`
}

// Holding is what [PutOptions.FencedBy] takes: a *[Lock] or an *[Office].
type Holding interface{ Handle() string }

// Name is the lock's, the election's or the group's.
func (l *Lease) Name() string { return l.name }

// Handle is the lease's on its connection.
func (l *Lease) Handle() string { return l.granted.Lease }

// Waited is how long the request waited.
func (l *Lease) Waited() time.Duration { return millis(l.granted.WaitedMs) }

// Length is how long a crash of the daemon would keep it.
func (l *Lease) Length() time.Duration { return millis(l.granted.LeaseMs) }

// Remaining is how long it was valid, when it was granted, without another renewal.
func (l *Lease) Remaining() time.Duration { return millis(l.granted.RemainingMs) }

// Lost is closed when the lease is lost, and never where it is given up instead.
func (l *Lease) Lost() <-chan struct{} { return l.lost }

// Err is why it is lost, an [ErrLost]; nil while it is not.
func (l *Lease) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// State is where it stands, as far as it was told.
func (l *Lease) State() State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

// Held reports whether it is held as far as this process can know without asking: it was not given up, no loss was told, and
// the daemon has heard from this client within the heartbeat. The clock of that does not count a suspended machine.
func (l *Lease) Held() bool {
	state := l.State()
	return (state == StateHeld || state == StateSuspect) && l.client.heard()
}

// Context returns a copy of ctx that is cancelled when the lease is lost, with [Lease.Err] as its cause.
func (l *Lease) Context(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	if err := l.Err(); err != nil {
		cancel(err)
	}
	stop := make(chan struct{})
	var once sync.Once
	go func() {
		select {
		case <-l.lost:
			cancel(l.Err())
		case <-stop:
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		once.Do(func() { close(stop) })
		cancel(context.Canceled)
	}
}

// OnChange calls listener with each new state: suspect, held again, lost. It runs while the connection is read, so it must not
// block, nor call the client.
func (l *Lease) OnChange(listener func(State)) {
	l.mu.Lock()
	l.listeners = append(l.listeners, listener)
	state := l.state
	l.mu.Unlock()
	if state == StateSuspect || state == StateLost {
		listener(state)
	}
}

// Check asks the daemon how it stands.
func (l *Lease) Check(ctx context.Context) (Check, error) {
	return callAs[Check](ctx, l.client, "lock.check", map[string]any{"lease": l.Handle()})
}

// Release gives it up. After [ErrUnavailable] or [ErrUnknownOutcome] the daemon goes on with it by itself; ask again to learn
// what came of it. Once that is known there is nothing more to do, and asking again is no error.
func (l *Lease) Release(ctx context.Context) error {
	l.mu.Lock()
	if l.err != nil || l.over {
		defer l.mu.Unlock()
		return l.err
	}
	l.state = StateReleased
	l.mu.Unlock()
	_, err := l.client.Call(ctx, l.release, map[string]any{"lease": l.Handle()})
	var told *Error
	if errors.As(err, &told) && told.Kind == "lost" {
		l.lose(told.Reason)
	}
	if err == nil {
		l.end()
	}
	return err
}

// end ends it because its owner wanted so.
func (l *Lease) end() {
	l.mu.Lock()
	l.state, l.over = StateReleased, true
	l.mu.Unlock()
	l.client.forget(l.Handle())
}

func (l *Lease) tell(state, reason string) {
	switch state {
	case "lost":
		l.lose(reason)
	case "suspect":
		l.change(StateSuspect)
	case "restored":
		l.change(StateHeld)
	}
}

func (l *Lease) change(state State) {
	l.mu.Lock()
	if l.state != StateHeld && l.state != StateSuspect {
		l.mu.Unlock()
		return
	}
	l.state = state
	listeners := l.listeners
	l.mu.Unlock()
	for _, listener := range listeners {
		listener(state)
	}
}

func (l *Lease) lose(reason string) {
	l.mu.Lock()
	if l.over || l.err != nil {
		l.mu.Unlock()
		return
	}
	l.state, l.over = StateLost, true
	l.err = lostError(l.what+" "+l.name, reason)
	listeners := l.listeners
	close(l.lost)
	l.mu.Unlock()
	l.client.forget(l.Handle())
	for _, listener := range listeners {
		listener(StateLost)
	}
}

// Lock is a lock that is held.
type Lock struct{ Lease }

// Fence is the fencing token: it grows with every later holder.
func (l *Lock) Fence() uint64 { return l.granted.Fence }

// Office is a leadership that is held.
type Office struct {
	Lease
	asked   chan struct{}
	askedBy *Candidate
}

// Fence is the term, which is the fencing token.
func (o *Office) Fence() uint64 { return o.granted.Fence }

// Candidate is the id of the candidature that won.
func (o *Office) Candidate() string { return o.granted.Candidate }

// Proclaim says something new to whoever asks who leads; it returns the revision.
func (o *Office) Proclaim(ctx context.Context, value []byte) (uint64, error) {
	return o.client.revision(ctx, "election.proclaim", with(map[string]any{"lease": o.Handle()}, text(value)))
}

// Resign is [Lease.Release].
func (o *Office) Resign(ctx context.Context) error { return o.Release(ctx) }

// Transfer hands the office to the candidate with that id; it returns the new leader's term.
func (o *Office) Transfer(ctx context.Context, candidate string) (uint64, error) {
	moved, err := callAs[struct {
		Fence uint64 `json:"fence"`
	}](ctx, o.client, "election.transfer", map[string]any{"lease": o.Handle(), "candidate": candidate})
	if err == nil {
		o.end()
	}
	return moved.Fence, err
}

// Asked is closed when a candidate with a higher priority asks for the office; AskedBy tells who.
func (o *Office) Asked() <-chan struct{} { return o.asked }

// AskedBy is who asked for the office; nil while nobody has.
func (o *Office) AskedBy() *Candidate {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.askedBy
}

func (o *Office) ask(raw json.RawMessage) {
	candidate := new(Candidate)
	if json.Unmarshal(raw, candidate) != nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.askedBy == nil {
		close(o.asked)
	}
	o.askedBy = candidate
}

// Membership is a place in a group.
type Membership struct{ Lease }

// ID is the member's.
func (m *Membership) ID() string { return m.granted.ID }

// Revision is the store's, of the member's first record.
func (m *Membership) Revision() uint64 { return m.granted.Revision }

// MemberChange is what [Membership.Update] changes. What is nil or zero stays as it is; an Address or Zone that points to an
// empty string is taken away.
type MemberChange struct {
	Value    []byte
	Address  *string
	Zone     *string
	Weight   int
	Metadata map[string]string
	State    string
}

// Update changes the member's record; it returns the revision.
func (m *Membership) Update(ctx context.Context, change MemberChange) (uint64, error) {
	params := with(map[string]any{"lease": m.Handle()}, change.Value)
	for name, value := range map[string]*string{"address": change.Address, "zone": change.Zone} {
		if value != nil && *value == "" {
			params[name] = nil
		} else if value != nil {
			params[name] = *value
		}
	}
	set(params, "weight", change.Weight)
	set(params, "state", change.State)
	if change.Metadata != nil {
		params["metadata"] = change.Metadata
	}
	return m.client.revision(ctx, "member.update", params)
}

// Beat says that it is well, for a heartbeat check.
func (m *Membership) Beat(ctx context.Context) error {
	_, err := m.client.Call(ctx, "member.beat", map[string]any{"lease": m.Handle()})
	return err
}

// Leave is [Lease.Release].
func (m *Membership) Leave(ctx context.Context) error { return m.Release(ctx) }
