package tenure

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// LockOptions of an acquisition. The zero value waits for as long as its context lasts.
type LockOptions struct {
	// Wait is how long to wait at most: 0 for ever, [Try] to ask once. When it is over the error is an [ErrTimeout].
	Wait time.Duration
	// Lease is how long a crash of the daemon keeps the lock; the daemon's default unless told.
	Lease time.Duration
	// Label is shown to whoever looks at the lock.
	Label string
}

// Lock acquires a lock.
func (c *Client) Lock(ctx context.Context, name string, options LockOptions) (*Lock, error) {
	params := map[string]any{"name": name}
	setWait(params, options.Wait)
	set(params, "lease_ms", toMillis(options.Lease))
	set(params, "label", options.Label)
	return acquire(ctx, c, "lock.acquire", "lock.release", params, func(told granted) *Lock {
		return &Lock{c.lease("lock", "lock.release", name, told)}
	})
}

// WithLock runs work under a lock and releases it afterwards. The context given to work is cancelled when the lock is lost; the
// error is then an [ErrLost], unless work failed with something else.
func (c *Client) WithLock(ctx context.Context, name string, options LockOptions, work func(ctx context.Context, lock *Lock) error) error {
	lock, err := c.Lock(ctx, name, options)
	if err != nil {
		return err
	}
	return under(ctx, &lock.Lease, func(ctx context.Context) error { return work(ctx, lock) })
}

func under(ctx context.Context, lease *Lease, work func(context.Context) error) (err error) {
	inside, cancel := lease.Context(ctx)
	released := false
	release := func() error {
		released = true
		cancel()
		final, stop := context.WithTimeout(context.WithoutCancel(ctx), releasePatience)
		defer stop()
		return lease.Release(final)
	}
	// Where work panics the lease goes, too.
	defer func() {
		if !released {
			_ = release()
		}
	}()
	err = work(inside)
	if lost := lease.Err(); lost != nil && (err == nil || isCancelled(err)) {
		err = lost
	}
	if unreleased := release(); err == nil {
		err = unreleased
	}
	return err
}

// GetLock tells who holds a lock and who waits for it.
func (c *Client) GetLock(ctx context.Context, name string) (LockView, error) {
	return callAs[LockView](ctx, c, "lock.get", map[string]any{"name": name})
}

// ListLocks tells of all locks with that prefix that somebody holds or waits for.
func (c *Client) ListLocks(ctx context.Context, prefix string) ([]LockView, error) {
	return listAll[LockView](ctx, c, "lock.list", "locks", prefixed(prefix))
}

// ObserveLock follows who holds a lock and who waits: events lock, sync, gap, end.
func (c *Client) ObserveLock(ctx context.Context, name string) (*Subscription, error) {
	return c.subscribe(ctx, "lock.observe", map[string]any{"name": name}, 0)
}

// BreakLock ends the hold of a lock that has this token, and no other; for administrators.
func (c *Client) BreakLock(ctx context.Context, name string, fence uint64) error {
	_, err := c.Call(ctx, "lock.break", map[string]any{"name": name, "fence": fence})
	return err
}

// CampaignOptions of a campaign. The zero value campaigns for as long as its context lasts.
type CampaignOptions struct {
	// Value is proclaimed when elected.
	Value []byte
	// Wait, Lease and Label are as in [LockOptions].
	Wait  time.Duration
	Lease time.Duration
	Label string
	// Priority: a leader with a lower one is asked to step down.
	Priority int
	// MinTenure: as leader, is not asked to step down before having led for so long.
	MinTenure time.Duration
}

// Campaign campaigns until elected.
func (c *Client) Campaign(ctx context.Context, name string, options CampaignOptions) (*Office, error) {
	params := with(map[string]any{"name": name}, options.Value)
	setWait(params, options.Wait)
	set(params, "lease_ms", toMillis(options.Lease))
	set(params, "label", options.Label)
	set(params, "priority", options.Priority)
	set(params, "min_tenure_ms", toMillis(options.MinTenure))
	return acquire(ctx, c, "election.campaign", "election.resign", params, func(told granted) *Office {
		return &Office{Lease: c.lease("leadership of", "election.resign", name, told), asked: make(chan struct{})}
	})
}

// WhileLeader campaigns, runs work while leading and resigns afterwards, as [Client.WithLock] does for a lock.
func (c *Client) WhileLeader(ctx context.Context, name string, options CampaignOptions, work func(ctx context.Context, office *Office) error) error {
	office, err := c.Campaign(ctx, name, options)
	if err != nil {
		return err
	}
	return under(ctx, &office.Lease, func(ctx context.Context) error { return work(ctx, office) })
}

// Leader tells who leads.
func (c *Client) Leader(ctx context.Context, name string) (Leadership, error) {
	return callAs[Leadership](ctx, c, "election.leader", map[string]any{"name": name})
}

// Candidates tells who waits to lead, longest first.
func (c *Client) Candidates(ctx context.Context, name string) ([]Candidate, error) {
	return listAll[Candidate](ctx, c, "election.candidates", "candidates", map[string]any{"name": name})
}

// ListElections tells of all elections with that prefix that somebody leads or waits to lead.
func (c *Client) ListElections(ctx context.Context, prefix string) ([]ElectionView, error) {
	return listAll[ElectionView](ctx, c, "election.list", "elections", prefixed(prefix))
}

// Observe follows who leads: events leader, sync, gap, end.
func (c *Client) Observe(ctx context.Context, name string) (*Subscription, error) {
	return c.subscribe(ctx, "election.observe", map[string]any{"name": name}, 0)
}

// JoinOptions of a member. The zero value has the daemon make an id.
type JoinOptions struct {
	ID       string
	Value    []byte
	Address  string
	Zone     string
	Weight   int
	Metadata map[string]string
	// State is passing unless told.
	State  string
	Checks []MemberCheck
	// LeaveWhenCritical: leave when it has been critical for so long.
	LeaveWhenCritical time.Duration
	Label             string
	Lease             time.Duration
}

// Join joins a group. Where somebody else who lives has that ID the error is an [ErrConflict].
func (c *Client) Join(ctx context.Context, group string, options JoinOptions) (*Membership, error) {
	params := with(map[string]any{"group": group}, options.Value)
	set(params, "id", options.ID)
	set(params, "address", options.Address)
	set(params, "zone", options.Zone)
	set(params, "weight", options.Weight)
	set(params, "state", options.State)
	set(params, "label", options.Label)
	set(params, "leave_when_critical_ms", toMillis(options.LeaveWhenCritical))
	set(params, "lease_ms", toMillis(options.Lease))
	if options.Metadata != nil {
		params["metadata"] = options.Metadata
	}
	if options.Checks != nil {
		params["checks"] = options.Checks
	}
	return acquire(ctx, c, "member.join", "member.leave", params, func(told granted) *Membership {
		return &Membership{c.lease("membership of", "member.leave", group, told)}
	})
}

// ListMembers tells one line's worth of members, by id; those after that one.
func (c *Client) ListMembers(ctx context.Context, group, after string) (MemberPage, error) {
	params := map[string]any{"group": group}
	set(params, "after", after)
	return callAs[MemberPage](ctx, c, "member.list", params)
}

// Members tells all members, by id.
func (c *Client) Members(ctx context.Context, group string) ([]Member, error) {
	var all []Member
	for after := ""; ; {
		page, err := c.ListMembers(ctx, group, after)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Members...)
		if page.Next == nil {
			return all, nil
		}
		after = *page.Next
	}
}

// ListGroups tells of all groups with that prefix that have members.
func (c *Client) ListGroups(ctx context.Context, prefix string) ([]GroupView, error) {
	return listAll[GroupView](ctx, c, "member.groups", "groups", prefixed(prefix))
}

// WatchMembers follows a group: events join, update, leave, sync, gap, end.
func (c *Client) WatchMembers(ctx context.Context, group string) (*Subscription, error) {
	return c.subscribe(ctx, "member.watch", map[string]any{"group": group}, 0)
}

func prefixed(prefix string) map[string]any {
	params := map[string]any{}
	set(params, "prefix", prefix)
	return params
}

// listAll asks for a list until there is no more of it.
func listAll[T any](ctx context.Context, c *Client, method, list string, params map[string]any) ([]T, error) {
	all := []T{}
	for {
		page, err := callAs[map[string]json.RawMessage](ctx, c, method, params)
		if err != nil {
			return nil, err
		}
		var elements []T
		if err := json.Unmarshal(page[list], &elements); err != nil {
			return nil, fmt.Errorf("tenure: %s: %w", method, err)
		}
		all = append(all, elements...)
		var next *string
		if told, is := page["next"]; is {
			if err := json.Unmarshal(told, &next); err != nil {
				return nil, fmt.Errorf("tenure: %s: %w", method, err)
			}
		}
		if next == nil {
			return all, nil
		}
		params["after"] = *next
	}
}
