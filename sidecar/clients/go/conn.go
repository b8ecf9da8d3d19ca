package tenure

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"sync"
	"time"
)

// maxLine is the longest line taken from a daemon, whose own limit may be set higher than usual.
const maxLine = 64 << 20

type request struct {
	Version string  `json:"jsonrpc"`
	ID      *uint64 `json:"id,omitempty"`
	Method  string  `json:"method"`
	Params  any     `json:"params"`
}

type incoming struct {
	ID     *uint64         `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  *wireError      `json:"error"`
}

type answer struct {
	result any
	err    error
}

// pending is a request that is not answered yet.
type pending struct {
	method string
	sent   time.Time
	// take reads the result while its line is read: the next line may be about it.
	take func(json.RawMessage) (any, error)
	// undo gives back what came although nobody waits any more.
	undo    func(any)
	dropped bool
	// answer has room for one.
	answer chan answer
}

// conn is one connection: lines in, lines out, requests that wait, the heartbeat, and the end of it all.
type conn struct {
	stream net.Conn
	told   func(method string, params json.RawMessage)
	ended  func(why string)

	mu        sync.Mutex
	lastID    uint64
	waiting   map[uint64]*pending
	why       string
	confirmed time.Time
	maxLine   int
	// afterwards are lines that no caller waits to send: at most two for each call that was dropped.
	afterwards [][]byte

	outgoing chan []byte
	filled   chan struct{}
	closed   chan struct{}
	tasks    sync.WaitGroup
}

func newConn(stream net.Conn, told func(string, json.RawMessage), ended func(string)) *conn {
	c := &conn{
		stream: stream, told: told, ended: ended, waiting: map[uint64]*pending{}, confirmed: time.Now(),
		outgoing: make(chan []byte), filled: make(chan struct{}, 1), closed: make(chan struct{}),
	}
	c.tasks.Add(2)
	go c.read()
	go c.write()
	return c
}

// call sends a request and waits for what take makes of its result.
func (c *conn) call(ctx context.Context, method string, params any, take func(json.RawMessage) (any, error), undo func(any)) (any, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	id, p, line, err := c.begin(method, params, take, undo)
	if err != nil {
		return nil, err
	}
	select {
	case c.outgoing <- line:
	case <-ctx.Done():
		c.mu.Lock()
		delete(c.waiting, id)
		c.mu.Unlock()
		return nil, ctx.Err()
	case <-c.closed:
		// The answer says what that means.
	}
	select {
	case a := <-p.answer:
		return given(ctx, p, a)
	case <-ctx.Done():
	}
	c.mu.Lock()
	_, open := c.waiting[id]
	p.dropped = open
	c.mu.Unlock()
	if !open {
		// Answered in this very moment.
		return given(ctx, p, <-p.answer)
	}
	c.later(request{Version: "2.0", Method: "cancel", Params: map[string]uint64{"id": id}})
	return nil, ctx.Err()
}

// given is the answer, unless it is something to be held by somebody who has given up already.
func given(ctx context.Context, p *pending, a answer) (any, error) {
	if err := ctx.Err(); err != nil && a.err == nil && p.undo != nil {
		p.undo(a.result)
		return nil, err
	}
	return a.result, a.err
}

// post sends a request whose answer nobody waits for.
func (c *conn) post(method string, params any) {
	_, _, line, err := c.begin(method, params, func(json.RawMessage) (any, error) { return nil, nil }, nil)
	if err == nil {
		c.queue(line)
	}
}

func (c *conn) begin(method string, params any, take func(json.RawMessage) (any, error), undo func(any)) (uint64, *pending, []byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.why != "" {
		return 0, nil, nil, notSent(method)
	}
	if params == nil {
		params = struct{}{}
	}
	c.lastID++
	id := c.lastID
	line, err := json.Marshal(request{Version: "2.0", ID: &id, Method: method, Params: params})
	if err != nil {
		return 0, nil, nil, &Error{Kind: "invalid_request", Message: fmt.Sprintf("the parameters of %s cannot be sent: %v", method, err)}
	}
	if c.maxLine > 0 && len(line) > c.maxLine {
		// The daemon would close the connection, and with it release everything.
		return 0, nil, nil, &Error{Kind: "invalid_request", Limit: "line_bytes",
			Message: fmt.Sprintf("the request has %d bytes and the daemon takes %d", len(line), c.maxLine)}
	}
	p := &pending{method: method, sent: time.Now(), take: take, undo: undo, answer: make(chan answer, 1)}
	c.waiting[id] = p
	return id, p, append(line, '\n'), nil
}

// later sends a line from where nothing can be waited for.
func (c *conn) later(r request) {
	if line, err := json.Marshal(r); err == nil {
		c.queue(append(line, '\n'))
	}
}

func (c *conn) queue(line []byte) {
	c.mu.Lock()
	c.afterwards = append(c.afterwards, line)
	c.mu.Unlock()
	select {
	case c.filled <- struct{}{}:
	default:
	}
}

func (c *conn) read() {
	defer c.tasks.Done()
	lines := bufio.NewScanner(c.stream)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var message incoming
		if err := json.Unmarshal(lines.Bytes(), &message); err != nil {
			c.close("malformed")
			return
		}
		if message.Method != "" {
			c.told(message.Method, message.Params)
		} else if message.ID != nil {
			c.answered(*message.ID, &message)
		}
	}
	c.close("disconnected")
}

func (c *conn) answered(id uint64, message *incoming) {
	c.mu.Lock()
	p := c.waiting[id]
	if p == nil {
		c.mu.Unlock()
		return
	}
	if p.sent.After(c.confirmed) {
		c.confirmed = p.sent
	}
	c.mu.Unlock()
	var a answer
	if message.Error != nil {
		a.err = message.Error.toError()
	} else if a.result, a.err = p.take(message.Result); a.err != nil {
		a.err = &Error{Kind: "internal", Message: fmt.Sprintf("the answer to %s is not understood: %v", p.method, a.err)}
	}
	c.mu.Lock()
	delete(c.waiting, id)
	dropped := p.dropped
	c.mu.Unlock()
	if !dropped {
		select {
		case p.answer <- a:
		default: // closed meanwhile, and told so
		}
	} else if a.err == nil && p.undo != nil {
		p.undo(a.result)
	}
}

func (c *conn) write() {
	defer c.tasks.Done()
	for {
		var line []byte
		select {
		case <-c.closed:
			return
		case line = <-c.outgoing:
		case <-c.filled:
			c.mu.Lock()
			for _, one := range c.afterwards {
				line = append(line, one...)
			}
			c.afterwards = nil
			c.mu.Unlock()
		}
		// The reader has yet to read what the daemon said before it closed, and then closes this side.
		if _, err := c.stream.Write(line); err != nil {
			return
		}
	}
}

// close ends the connection: what is held is told lost, then every request that waits fails.
func (c *conn) close(why string) {
	c.mu.Lock()
	if c.why != "" {
		c.mu.Unlock()
		return
	}
	c.why = why
	waiting := c.waiting
	c.waiting = map[uint64]*pending{}
	c.mu.Unlock()
	c.stream.Close()
	c.ended(why)
	close(c.closed)
	for _, p := range waiting {
		// One that is being answered just now has its answer.
		select {
		case p.answer <- answer{err: disconnected(p.method)}:
		default:
		}
	}
}

func (c *conn) inFlight() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	count := 0
	for _, p := range c.waiting {
		if p.method != "ping" && !p.dropped {
			count++
		}
	}
	return count
}

// heard reports whether the daemon has surely heard from here within the heartbeat; 0 is for none.
func (c *conn) heard(heartbeat time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.why == "" && (heartbeat <= 0 || time.Since(c.confirmed) < heartbeat)
}

// keepAlive sends a ping three times per heartbeat, and closes a connection whose daemon says nothing for one.
func (c *conn) keepAlive(heartbeat time.Duration) {
	defer c.tasks.Done()
	ticks := time.NewTicker(max(heartbeat/3, time.Millisecond))
	defer ticks.Stop()
	for {
		c.post("ping", nil)
		select {
		case <-c.closed:
			return
		case <-ticks.C:
			if !c.heard(heartbeat) {
				c.close("daemon_silent")
			}
		}
	}
}
