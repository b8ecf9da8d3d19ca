package tenure

import (
	"encoding/base64"
	"encoding/json"
	"unicode/utf8"
)

// Owner is who holds a lock or waits for it. SinceMs is Unix time, for people.
type Owner struct {
	Fence   uint64  `json:"fence"`
	Label   *string `json:"label"`
	Session string  `json:"session"`
	Host    string  `json:"host"`
	Pid     int     `json:"pid"`
	SinceMs int64   `json:"since_ms"`
}

// LockView is a lock as the store shows it; waiters in the order of grants to come.
type LockView struct {
	Name    string  `json:"name"`
	Holder  *Owner  `json:"holder"`
	Waiters []Owner `json:"waiters"`
	// How many more wait, where all of them would be longer than a line.
	MoreWaiters int `json:"more_waiters"`
}

// Check is where a lease stands, as the daemon sees it.
type Check struct {
	Held        bool   `json:"held"`
	RemainingMs int64  `json:"remaining_ms"`
	Fence       uint64 `json:"fence"`
}

// Leader is who leads an election; Fence is the term.
type Leader struct {
	Value     []byte  `json:"-"`
	Fence     uint64  `json:"fence"`
	Revision  uint64  `json:"revision"`
	Session   string  `json:"session"`
	Candidate string  `json:"candidate"`
	Label     *string `json:"label"`
	Host      string  `json:"host"`
	Pid       int     `json:"pid"`
	Priority  int     `json:"priority"`
	SinceMs   int64   `json:"since_ms"`
}

// Leadership answers who leads: a nil Leader for nobody, and how long ago at most the store said so.
type Leadership struct {
	Leader *Leader `json:"leader"`
	AgeMs  int64   `json:"age_ms"`
}

// ElectionView is an election as the store shows it: the Leader without its value, nil for nobody, and how many wait.
type ElectionView struct {
	Name       string  `json:"name"`
	Leader     *Leader `json:"leader"`
	Candidates int     `json:"candidates"`
}

// GroupView is a group as the store shows it, and how many members it has.
type GroupView struct {
	Name    string `json:"name"`
	Members int    `json:"members"`
}

// KeyPage is one line's worth of keys, sorted; Next is not nil where there are more.
type KeyPage struct {
	Keys []string `json:"keys"`
	Next *string  `json:"next"`
}

// Candidate is one who waits to lead.
type Candidate struct {
	ID       string  `json:"id"`
	Value    []byte  `json:"-"`
	Session  string  `json:"session"`
	Label    *string `json:"label"`
	Host     string  `json:"host"`
	Pid      int     `json:"pid"`
	Priority int     `json:"priority"`
	SinceMs  int64   `json:"since_ms"`
}

// Member is a member of a group, as others see it.
type Member struct {
	ID       string            `json:"id"`
	Revision uint64            `json:"revision"`
	Value    []byte            `json:"-"`
	Address  *string           `json:"address"`
	Zone     *string           `json:"zone"`
	Weight   int               `json:"weight"`
	Metadata map[string]string `json:"metadata"`
	State    string            `json:"state"`
	Session  string            `json:"session"`
	Host     string            `json:"host"`
	Pid      int               `json:"pid"`
	Label    *string           `json:"label"`
}

// MemberPage is one line's worth of members, by id; Next is not nil where there are more.
type MemberPage struct {
	Members    []Member `json:"members"`
	Revision   uint64   `json:"revision"`
	Unreadable int      `json:"unreadable"`
	Next       *string  `json:"next"`
}

// MemberCheck is how the daemon finds out whether a member is well: tcp:HOST:PORT, http://… or heartbeat:SECONDS.
type MemberCheck struct {
	Check      string `json:"check"`
	IntervalMs int64  `json:"interval_ms,omitempty"`
	TimeoutMs  int64  `json:"timeout_ms,omitempty"`
	Rise       int    `json:"rise,omitempty"`
	Fall       int    `json:"fall,omitempty"`
	Initially  string `json:"initially,omitempty"`
}

// Entry is one entry of a bucket.
type Entry struct {
	Key       string `json:"key"`
	Value     []byte `json:"-"`
	Revision  uint64 `json:"revision"`
	Created   string `json:"created"`
	Operation string `json:"operation"`
}

// Event is something that a subscription tells; Kind says which of the other fields there are.
//
// A "gap" says that events are missing here; nothing is done about it behind the application's back.
//
// The last one of every subscription that was not closed by its owner is "end", with a Reason: one that the daemon gave, or
// "slow_reader" (too many events waited here), "disconnected" or "closed".
type Event struct {
	Kind string `json:"kind"`
	// Holder of a lock now, nil for nobody; Waiters are the first of those who wait, and Waiting is how many do.
	Holder  *Owner  `json:"holder,omitempty"`
	Waiters []Owner `json:"waiters,omitempty"`
	Waiting int     `json:"waiting,omitempty"`

	Leader         *Leader `json:"leader,omitempty"`
	Member         *Member `json:"member,omitempty"`
	ID             string  `json:"id,omitempty"`
	Key            string  `json:"key,omitempty"`
	Value          []byte  `json:"-"`
	Revision       uint64  `json:"revision,omitempty"`
	ResumeRevision uint64  `json:"resume_revision,omitempty"`
	Reason         string  `json:"reason,omitempty"`
}

// Limits is what one connection and the daemon allow.
type Limits struct {
	LineBytes     int   `json:"line_bytes"`
	Requests      int   `json:"requests"`
	Subscriptions int   `json:"subscriptions"`
	StallMs       int64 `json:"stall_ms"`
	Leases        int   `json:"leases"`
	Connections   int   `json:"connections"`
	// Of all connections of one user.
	ConnectionsPerUID   int `json:"connections_per_uid"`
	RequestsPerUID      int `json:"requests_per_uid"`
	LeasesPerUID        int `json:"leases_per_uid"`
	SubscriptionsPerUID int `json:"subscriptions_per_uid"`
	ChecksPerUID        int `json:"checks_per_uid"`

	MinCheckIntervalMs int64 `json:"min_check_interval_ms"`

	LeaseLengths   int   `json:"lease_lengths"`
	DefaultLeaseMs int64 `json:"default_lease_ms"`
	MinLeaseMs     int64 `json:"min_lease_ms"`
	MaxLeaseMs     int64 `json:"max_lease_ms"`
}

// Hello is what the daemon said when the connection began. Capabilities are the methods that it serves.
type Hello struct {
	Protocol     int      `json:"protocol"`
	Server       string   `json:"server"`
	Session      string   `json:"session"`
	Store        Store    `json:"store"`
	Capabilities []string `json:"capabilities"`
	Limits       Limits   `json:"limits"`
}

// Store is where a daemon keeps everything; Shared where other machines see the same.
type Store struct {
	URL      string `json:"url"`
	Shared   bool   `json:"shared"`
	Replicas int    `json:"replicas"`
}

// Status is how the daemon fares: what it has of everything, and of the connection that asks.
type Status struct {
	Server      string          `json:"server"`
	Pid         int             `json:"pid"`
	UptimeMs    int64           `json:"uptime_ms"`
	Draining    bool            `json:"draining"`
	Store       Store           `json:"store"`
	Sessions    []SessionStatus `json:"sessions"`
	Connections int             `json:"connections"`
	// How many there may be.
	ConnectionsMax int `json:"connections_max"`

	Leases        int              `json:"leases"`
	Leaderships   int              `json:"leaderships"`
	Members       int              `json:"members"`
	Subscriptions int              `json:"subscriptions"`
	Requests      int              `json:"requests"`
	Policy        *PolicyStatus    `json:"policy"`
	Connection    ConnectionStatus `json:"connection"`
}

// SessionStatus is a session of the daemon with its store; Users are the leases and waits that rest on it.
type SessionStatus struct {
	ID          string `json:"id"`
	LeaseMs     int64  `json:"lease_ms"`
	State       string `json:"state"`
	RemainingMs int64  `json:"remaining_ms"`
	Users       int    `json:"users"`
}

// PolicyStatus is the rules that say who may do what; Problem is why what the file says now is not in force.
type PolicyStatus struct {
	Path    string  `json:"path"`
	Rules   int     `json:"rules"`
	Problem *string `json:"problem"`
}

// ConnectionStatus is what the daemon knows of the connection that asks.
type ConnectionStatus struct {
	Session       string `json:"session"`
	Pid           *int   `json:"pid"`
	UID           int    `json:"uid"`
	Leases        int    `json:"leases"`
	Subscriptions int    `json:"subscriptions"`
	Requests      int    `json:"requests"`
	HeartbeatMs   *int64 `json:"heartbeat_ms"`
}

// wireValue is a value on the wire: text where it is UTF-8, else base64.
type wireValue struct {
	Value    *string `json:"value,omitempty"`
	ValueB64 *string `json:"value_b64,omitempty"`
}

func toWire(value []byte) wireValue {
	if value == nil {
		return wireValue{}
	}
	if utf8.Valid(value) {
		text := string(value)
		return wireValue{Value: &text}
	}
	text := base64.StdEncoding.EncodeToString(value)
	return wireValue{ValueB64: &text}
}

// fromWire reads the value beside whatever else is in data.
func fromWire(data []byte, value *[]byte) error {
	var wire wireValue
	if err := json.Unmarshal(data, &wire); err != nil {
		return err
	}
	switch {
	case wire.ValueB64 != nil:
		decoded, err := base64.StdEncoding.DecodeString(*wire.ValueB64)
		*value = decoded
		return err
	case wire.Value != nil:
		*value = []byte(*wire.Value)
	}
	return nil
}

// UnmarshalJSON reads it as it is on the wire.
func (l *Leader) UnmarshalJSON(data []byte) error {
	type plain Leader
	if err := json.Unmarshal(data, (*plain)(l)); err != nil {
		return err
	}
	return fromWire(data, &l.Value)
}

// MarshalJSON writes it as it is on the wire.
func (l Leader) MarshalJSON() ([]byte, error) {
	type plain Leader
	return json.Marshal(struct {
		plain
		wireValue
	}{plain(l), toWire(l.Value)})
}

// UnmarshalJSON reads it as it is on the wire.
func (c *Candidate) UnmarshalJSON(data []byte) error {
	type plain Candidate
	if err := json.Unmarshal(data, (*plain)(c)); err != nil {
		return err
	}
	return fromWire(data, &c.Value)
}

// MarshalJSON writes it as it is on the wire.
func (c Candidate) MarshalJSON() ([]byte, error) {
	type plain Candidate
	return json.Marshal(struct {
		plain
		wireValue
	}{plain(c), toWire(c.Value)})
}

// UnmarshalJSON reads it as it is on the wire.
func (m *Member) UnmarshalJSON(data []byte) error {
	type plain Member
	if err := json.Unmarshal(data, (*plain)(m)); err != nil {
		return err
	}
	return fromWire(data, &m.Value)
}

// MarshalJSON writes it as it is on the wire.
func (m Member) MarshalJSON() ([]byte, error) {
	type plain Member
	return json.Marshal(struct {
		plain
		wireValue
	}{plain(m), toWire(m.Value)})
}

// UnmarshalJSON reads it as it is on the wire.
func (e *Entry) UnmarshalJSON(data []byte) error {
	type plain Entry
	if err := json.Unmarshal(data, (*plain)(e)); err != nil {
		return err
	}
	return fromWire(data, &e.Value)
}

// MarshalJSON writes it as it is on the wire.
func (e Entry) MarshalJSON() ([]byte, error) {
	type plain Entry
	return json.Marshal(struct {
		plain
		wireValue
	}{plain(e), toWire(e.Value)})
}

// UnmarshalJSON reads it as it is on the wire.
func (e *Event) UnmarshalJSON(data []byte) error {
	type plain Event
	if err := json.Unmarshal(data, (*plain)(e)); err != nil {
		return err
	}
	return fromWire(data, &e.Value)
}

// MarshalJSON writes it as it is on the wire.
func (e Event) MarshalJSON() ([]byte, error) {
	type plain Event
	return json.Marshal(struct {
		plain
		wireValue
	}{plain(e), toWire(e.Value)})
}
