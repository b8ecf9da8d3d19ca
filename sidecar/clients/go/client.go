package tenure

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Defaults of [Options].
const (
	DefaultHeartbeat = 10 * time.Second
	DefaultEvents    = 16_384
)

// Try, as a Wait, asks once and does not wait.
const Try time.Duration = -1

// releasePatience is how long a release may take at the end of a With function.
const releasePatience = 10 * time.Second

// Options of a connection. The zero value is what most want.
type Options struct {
	// Socket is where the daemon listens; [DefaultSocket] unless told.
	Socket string
	// Name is what the client calls itself, for people.
	Name string
	// Heartbeat is for how long the daemon may hear nothing from here before it lets everything go; [DefaultHeartbeat] unless
	// told, and negative for none. A goroutine pings three times as often, so it stops with the process, not with a goroutine of
	// the application that hangs; a daemon that answers no ping for as long is given up in turn.
	Heartbeat time.Duration
	// ManualPing leaves it to the application to call [Client.Ping], from wherever it can tell that it is well.
	ManualPing bool
	// Events is how many unread ones are kept for each subscription before it ends as "slow_reader"; [DefaultEvents] unless told.
	Events int
}

// Client is a connection to the daemon. All methods may be called at the same time.
type Client struct {
	conn    *conn
	options Options
	hello   Hello

	mu            sync.Mutex
	why           string
	leases        map[string]holding
	subscriptions map[string]*Subscription
	leaving       chan struct{}
	deadline      time.Duration
}

type holding interface {
	tell(state, reason string)
	lose(reason string)
}

// DefaultSocket is where the daemon listens: $TENURE_SOCKET, else $XDG_RUNTIME_DIR/tenure/tenured.sock, else
// /run/tenure/tenured.sock.
func DefaultSocket() string {
	if named := os.Getenv("TENURE_SOCKET"); named != "" {
		return named
	}
	dir := os.Getenv("XDG_RUNTIME_DIR")
	if dir == "" {
		dir = "/run"
	}
	return filepath.Join(dir, "tenure", "tenured.sock")
}

// Connect connects to the daemon and says hello. Where nobody answers the error is an [ErrUnavailable] that says what to do.
func Connect(ctx context.Context, options Options) (*Client, error) {
	if options.Socket == "" {
		options.Socket = DefaultSocket()
	}
	if options.Name == "" {
		options.Name = "tenure-client-go/0.1.0"
	}
	if options.Heartbeat == 0 {
		options.Heartbeat = DefaultHeartbeat
	}
	if options.Events == 0 {
		options.Events = DefaultEvents
	}
	var dialer net.Dialer
	stream, err := dialer.DialContext(ctx, "unix", options.Socket)
	if err != nil {
		return nil, noConnection(options.Socket, err)
	}
	c := &Client{
		options: options, leases: map[string]holding{}, subscriptions: map[string]*Subscription{}, leaving: make(chan struct{}),
	}
	// Nothing is told before hello is answered.
	c.conn = newConn(stream, c.told, c.ended)
	params := map[string]any{"protocol": []int{1}, "client": options.Name}
	if options.Heartbeat > 0 {
		params["heartbeat_ms"] = toMillis(options.Heartbeat)
	}
	if c.hello, err = callAs[Hello](ctx, c, "hello", params); err != nil {
		c.Close()
		return nil, err
	}
	c.conn.mu.Lock()
	c.conn.maxLine = c.hello.Limits.LineBytes
	c.conn.mu.Unlock()
	if options.Heartbeat > 0 && !options.ManualPing {
		c.conn.tasks.Add(1)
		go c.conn.keepAlive(options.Heartbeat)
	}
	return c, nil
}

func noConnection(socket string, err error) error {
	said := fmt.Sprintf("cannot connect to %s: %v", socket, err)
	switch {
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, fs.ErrNotExist):
		said = fmt.Sprintf("there is no socket %s; start tenured, or name its socket", socket)
	case errors.Is(err, syscall.ECONNREFUSED):
		said = fmt.Sprintf("nobody listens on %s; start tenured", socket)
	case errors.Is(err, fs.ErrPermission):
		said = fmt.Sprintf("this user may not use %s; join the group of the socket, or start tenured with --socket-group", socket)
	}
	return &Error{Kind: "unavailable", Retryable: true, Message: said}
}

// Close closes the connection; the daemon releases whatever is still held.
func (c *Client) Close() error {
	c.conn.close("closed")
	c.conn.tasks.Wait()
	return nil
}

// Closed is closed when the connection has ended, and with it everything held through it.
func (c *Client) Closed() <-chan struct{} { return c.conn.closed }

// Leaving is closed when the daemon says that it is leaving: what is still held [Client.LeavingIn] after that is lost.
func (c *Client) Leaving() <-chan struct{} { return c.leaving }

// LeavingIn is how long after Leaving what is still held is lost.
func (c *Client) LeavingIn() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.deadline
}

// Hello is what the daemon said of itself.
func (c *Client) Hello() Hello { return c.hello }

// Supports reports whether the daemon serves method.
func (c *Client) Supports(method string) bool { return slices.Contains(c.hello.Capabilities, method) }

// InFlight is how many requests are not answered yet.
func (c *Client) InFlight() int { return c.conn.inFlight() }

// Call calls any method by its name on the wire and returns its result as it is. A lease or subscription in it is the caller's
// own business.
func (c *Client) Call(ctx context.Context, method string, params any) (json.RawMessage, error) {
	result, err := c.conn.call(ctx, method, params, func(raw json.RawMessage) (any, error) { return slices.Clone(raw), nil }, nil)
	if err != nil {
		return nil, err
	}
	raw, _ := result.(json.RawMessage)
	return raw, nil
}

// Ping says that this client is alive.
func (c *Client) Ping(ctx context.Context) error {
	_, err := c.Call(ctx, "ping", nil)
	return err
}

// Status tells how the daemon and this connection fare.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return callAs[Status](ctx, c, "status", nil)
}

// Discover returns the protocol as an OpenRPC document.
func (c *Client) Discover(ctx context.Context) (json.RawMessage, error) {
	return c.Call(ctx, "rpc.discover", nil)
}

func callAs[T any](ctx context.Context, c *Client, method string, params any) (T, error) {
	var none T
	result, err := c.conn.call(ctx, method, params, func(raw json.RawMessage) (any, error) {
		var value T
		err := json.Unmarshal(raw, &value)
		return value, err
	}, nil)
	if err != nil {
		return none, err
	}
	return result.(T), nil
}

func (c *Client) revision(ctx context.Context, method string, params any) (uint64, error) {
	written, err := callAs[struct {
		Revision uint64 `json:"revision"`
	}](ctx, c, method, params)
	return written.Revision, err
}

// acquire calls a method that grants, and knows the lease before the next line is read, which may tell that it is lost.
func acquire[T holding](ctx context.Context, c *Client, method, release string, params any, build func(granted) T) (T, error) {
	var none T
	take := func(raw json.RawMessage) (any, error) {
		var told granted
		if err := json.Unmarshal(raw, &told); err != nil {
			return nil, err
		}
		lease := build(told)
		c.mu.Lock()
		why := c.why
		c.leases[told.Lease] = lease
		c.mu.Unlock()
		if why != "" {
			lease.lose(why)
		}
		return lease, nil
	}
	undo := func(taken any) {
		handle := any(taken).(Holding).Handle()
		c.forget(handle)
		c.conn.post(release, map[string]any{"lease": handle})
	}
	taken, err := c.conn.call(ctx, method, params, take, undo)
	if err != nil {
		return none, err
	}
	return taken.(T), nil
}

func (c *Client) lease(what, release, name string, told granted) Lease {
	return Lease{client: c, what: what, release: release, name: name, granted: told, state: StateHeld, lost: make(chan struct{})}
}

func (c *Client) subscribe(ctx context.Context, method string, params any, resume uint64) (*Subscription, error) {
	take := func(raw json.RawMessage) (any, error) {
		var told struct {
			Subscription string `json:"subscription"`
		}
		if err := json.Unmarshal(raw, &told); err != nil {
			return nil, err
		}
		s := &Subscription{client: c, handle: told.Subscription, room: c.options.Events, resume: resume, filled: make(chan struct{}, 1)}
		c.mu.Lock()
		why := c.why
		c.subscriptions[s.handle] = s
		c.mu.Unlock()
		if why != "" {
			s.add(Event{Kind: "end", Reason: why})
		}
		return s, nil
	}
	undo := func(taken any) {
		handle := taken.(*Subscription).handle
		c.forgetSubscription(handle)
		c.conn.post("subscription.cancel", map[string]any{"subscription": handle})
	}
	taken, err := c.conn.call(ctx, method, params, take, undo)
	if err != nil {
		return nil, err
	}
	return taken.(*Subscription), nil
}

func (c *Client) forget(handle string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.leases, handle)
}

func (c *Client) forgetSubscription(handle string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.subscriptions, handle)
}

func (c *Client) heard() bool { return c.conn.heard(c.options.Heartbeat) }

// told deals with a notification.
func (c *Client) told(method string, raw json.RawMessage) {
	var said struct {
		Lease        string          `json:"lease"`
		State        string          `json:"state"`
		Reason       string          `json:"reason"`
		Subscription string          `json:"subscription"`
		Kind         string          `json:"kind"`
		Candidate    json.RawMessage `json:"candidate"`
		DeadlineMs   int64           `json:"deadline_ms"`
	}
	if json.Unmarshal(raw, &said) != nil {
		return
	}
	c.mu.Lock()
	lease, subscription := c.leases[said.Lease], c.subscriptions[said.Subscription]
	c.mu.Unlock()
	switch {
	case method == "lease" && lease != nil:
		lease.tell(said.State, said.Reason)
	case method == "event" && subscription != nil:
		subscription.tell(raw)
	case method == "event" && said.Kind == "asked_to_step_down":
		if office, ok := lease.(*Office); ok {
			office.ask(said.Candidate)
		}
	case method == "goaway":
		c.mu.Lock()
		c.deadline = millis(said.DeadlineMs)
		select {
		case <-c.leaving:
		default:
			close(c.leaving)
		}
		c.mu.Unlock()
	}
}

// ended tells everything that it is over.
func (c *Client) ended(why string) {
	c.mu.Lock()
	c.why = why
	leases, subscriptions := c.leases, c.subscriptions
	c.leases, c.subscriptions = map[string]holding{}, map[string]*Subscription{}
	c.mu.Unlock()
	for _, lease := range leases {
		lease.lose(why)
	}
	for _, subscription := range subscriptions {
		subscription.add(Event{Kind: "end", Reason: why})
	}
}
