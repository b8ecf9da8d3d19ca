package tenure

import (
	"encoding/json"
	"fmt"
	"slices"
)

// Error is what the daemon, or this client in its place, says went wrong. Tell what to do about it with [errors.Is] and one of
// the Err values, or by Kind.
type Error struct {
	// Kind is the word on the wire, also one that this package does not know.
	Kind string
	// Message is one sentence for people.
	Message string
	// Retryable says that the same request may be sent again as it is, with nothing read back before.
	Retryable bool
	// Code is the number on the wire; 0 where no daemon said it.
	Code int
	// Reason says why a lease is lost.
	Reason string
	// Limit names the limit that was reached.
	Limit string
	// Needs is what the daemon's policy would have to allow.
	Needs string
	// Param names the parameter that is wrong.
	Param string
	// Revision is what a conflict found, where that is known.
	Revision uint64
	// Holder is who had the lock that was not acquired in time, where that is known.
	Holder *Owner
	// Data is all that came with it.
	Data map[string]json.RawMessage
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Is reports whether target is the Err value for this error's kind.
func (e *Error) Is(target error) bool {
	class, ok := target.(*class)
	return ok && slices.Contains(class.kinds, e.Kind)
}

type class struct {
	text  string
	kinds []string
}

func (c *class) Error() string { return "tenure: " + c.text }

// What can go wrong, sorted by what the caller should do about it.
var (
	// ErrInvalid: the call is wrong and will be wrong again.
	ErrInvalid error = &class{"invalid", []string{"parse_error", "invalid_request", "invalid_params"}}
	// ErrUnsupported: this daemon does not offer that.
	ErrUnsupported error = &class{"unsupported", []string{"unsupported", "method_not_found"}}
	// ErrConflict: a precondition failed and nothing was applied.
	ErrConflict error = &class{"conflict", []string{"conflict"}}
	// ErrUnavailable: the store is out of reach or there is no connection; nothing was applied.
	ErrUnavailable error = &class{"unavailable", []string{"unavailable"}}
	// ErrUnknownOutcome: it may have been applied; read back before assuming either.
	ErrUnknownOutcome error = &class{"unknown outcome", []string{"unknown_outcome"}}
	// ErrTimeout: not acquired in time.
	ErrTimeout error = &class{"timeout", []string{"timeout"}}
	// ErrNotHeld: no such lease on this connection.
	ErrNotHeld error = &class{"not held", []string{"not_held"}}
	// ErrLost: the lease is lost, and whatever it protected may have a new owner.
	ErrLost error = &class{"lost", []string{"lost"}}
	// ErrCancelled: cancelled by a cancel that the application sent itself; what a context cancels fails with its error instead.
	ErrCancelled error = &class{"cancelled", []string{"cancelled"}}
	// ErrDenied: this user may not.
	ErrDenied error = &class{"denied", []string{"denied"}}
	// ErrLimit: a limit of this connection or of the daemon.
	ErrLimit error = &class{"limit", []string{"limit"}}
	// ErrNotFound: no such key, bucket, name, request or subscription.
	ErrNotFound error = &class{"not found", []string{"not_found"}}
)

type wireError struct {
	Code    int                        `json:"code"`
	Message string                     `json:"message"`
	Data    map[string]json.RawMessage `json:"data"`
}

func (w *wireError) toError() *Error {
	e := &Error{Kind: "internal", Message: w.Message, Code: w.Code, Data: w.Data}
	for name, into := range map[string]any{
		"kind": &e.Kind, "retryable": &e.Retryable, "reason": &e.Reason, "limit": &e.Limit, "needs": &e.Needs, "param": &e.Param,
		"revision": &e.Revision, "holder": &e.Holder,
	} {
		if raw, ok := w.Data[name]; ok {
			// What is of another type than today's is left in Data.
			_ = json.Unmarshal(raw, into)
		}
	}
	return e
}

func lostError(what, reason string) *Error {
	return &Error{Kind: "lost", Message: fmt.Sprintf("the %s is lost: %s", what, reason), Reason: reason}
}

// A request that the connection did not outlive.
func disconnected(method string) *Error {
	if harmless[method] {
		return &Error{Kind: "unavailable", Retryable: true,
			Message: "the connection to the daemon ended before " + method + " was answered"}
	}
	return &Error{Kind: "unknown_outcome",
		Message: "the connection to the daemon ended before " + method + " was answered, so it may have been done"}
}

// A request that was never sent.
func notSent(method string) *Error {
	return &Error{Kind: "unavailable", Retryable: true,
		Message: "the connection is closed, so " + method + " was not sent; connect again"}
}

// Methods that change nothing by themselves once their connection is gone. Any other may have been done.
var harmless = map[string]bool{
	"hello": true, "ping": true, "status": true, "rpc.discover": true, "cancel": true, "subscription.cancel": true,
	"lock.acquire": true, "lock.check": true, "lock.get": true, "lock.list": true, "lock.observe": true,
	"election.campaign": true, "election.leader": true, "election.candidates": true, "election.list": true, "election.observe": true,
	"member.join": true, "member.beat": true, "member.list": true, "member.groups": true, "member.watch": true,
	"kv.get": true, "kv.keys": true, "kv.history": true, "kv.watch": true,
}
