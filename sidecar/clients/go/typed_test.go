package tenure_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"time"

	tenure "tenure/clients/go"
)

// base is the lease in a lock, an office or a membership.
func base(held any) *tenure.Lease {
	switch held := held.(type) {
	case *tenure.Lock:
		return &held.Lease
	case *tenure.Office:
		return &held.Lease
	case *tenure.Membership:
		return &held.Lease
	}
	return nil
}

// dump is what the client returned, as it was on the wire.
func dump(result any) any {
	lease := base(result)
	if lease == nil {
		return result
	}
	found := object{"lease": lease.Handle(), "waited_ms": lease.Waited().Milliseconds(),
		"remaining_ms": lease.Remaining().Milliseconds(), "lease_ms": lease.Length().Milliseconds()}
	switch held := result.(type) {
	case *tenure.Lock:
		found["fence"] = held.Fence()
	case *tenure.Office:
		found["fence"], found["candidate"] = held.Fence(), held.Candidate()
	case *tenure.Membership:
		found["id"], found["revision"] = held.ID(), held.Revision()
	}
	return found
}

// arguments reads parameters; inexpressible is set where the typed method cannot say the same.
type arguments struct {
	object
	inexpressible bool
}

func (a *arguments) text(name string) string {
	text, _ := a.object[name].(string)
	return text
}

func (a *arguments) number(name string) int {
	number, told := a.object[name].(float64)
	if told && number == 0 {
		a.inexpressible = true
	}
	return int(number)
}

func (a *arguments) duration(name string) time.Duration {
	return time.Duration(a.number(name)) * time.Millisecond
}

func (a *arguments) wait() time.Duration {
	ms, told := a.object["wait_ms"].(float64)
	if told && ms == 0 {
		return tenure.Try
	}
	return time.Duration(ms) * time.Millisecond
}

func (a *arguments) value() []byte {
	if text, ok := a.object["value_b64"].(string); ok {
		decoded, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			a.inexpressible = true
		}
		return decoded
	}
	if text, ok := a.object["value"].(string); ok {
		return append([]byte{}, text...)
	}
	return nil
}

// pointer is nil for what is absent, and points to nothing for null.
func (a *arguments) pointer(name string) *string {
	value, told := a.object[name]
	if !told {
		return nil
	}
	text, _ := value.(string)
	return &text
}

func (a *arguments) metadata() map[string]string {
	given, told := a.object["metadata"].(object)
	if !told {
		return nil
	}
	metadata := map[string]string{}
	for name, value := range given {
		metadata[name], _ = value.(string)
	}
	return metadata
}

func done(err error) (any, error) { return object{}, err }

func revised(revision uint64, err error) (any, error) { return object{"revision": revision}, err }

func named[T any](name string) func(T, error) (any, error) {
	return func(found T, err error) (any, error) { return object{name: found}, err }
}

// orNil keeps a nil pointer from becoming a result.
func orNil[T any](held *T, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return held, nil
}

// typedCall is the typed method for these parameters, or nil.
func typedCall(c *tenure.Client, lease func(string) any, method string, params object) func(context.Context) (any, error) {
	a := &arguments{object: params}
	held := lease(a.text("lease"))
	if _, told := params["lease"]; told && held == nil {
		return nil
	}
	var fencedBy tenure.Holding
	if handle, told := params["fence_lease"].(string); told {
		if fencedBy, _ = lease(handle).(tenure.Holding); fencedBy == nil {
			return nil
		}
	}
	office, _ := held.(*tenure.Office)
	member, _ := held.(*tenure.Membership)
	key, value := a.text("key"), a.value()
	var typed func(context.Context) (any, error)
	switch method {
	case "ping":
		typed = func(ctx context.Context) (any, error) { return done(c.Ping(ctx)) }
	case "status":
		typed = func(ctx context.Context) (any, error) { return c.Status(ctx) }
	case "rpc.discover":
		typed = func(ctx context.Context) (any, error) { return c.Discover(ctx) }
	case "lock.acquire":
		options := tenure.LockOptions{Wait: a.wait(), Lease: a.duration("lease_ms"), Label: a.text("label")}
		typed = func(ctx context.Context) (any, error) { return orNil(c.Lock(ctx, a.text("name"), options)) }
	case "lock.release", "election.resign", "member.leave":
		typed = func(ctx context.Context) (any, error) { return done(base(held).Release(ctx)) }
	case "lock.check":
		typed = func(ctx context.Context) (any, error) { return base(held).Check(ctx) }
	case "lock.get":
		typed = func(ctx context.Context) (any, error) { return c.GetLock(ctx, a.text("name")) }
	case "lock.list":
		typed = func(ctx context.Context) (any, error) {
			return named[[]tenure.LockView]("locks")(c.ListLocks(ctx, a.text("prefix")))
		}
	case "lock.break":
		fence := uint64(a.number("fence"))
		typed = func(ctx context.Context) (any, error) { return done(c.BreakLock(ctx, a.text("name"), fence)) }
	case "election.campaign":
		options := tenure.CampaignOptions{Value: value, Wait: a.wait(), Lease: a.duration("lease_ms"), Label: a.text("label"),
			Priority: a.number("priority"), MinTenure: a.duration("min_tenure_ms")}
		typed = func(ctx context.Context) (any, error) { return orNil(c.Campaign(ctx, a.text("name"), options)) }
	case "election.proclaim":
		typed = func(ctx context.Context) (any, error) { return revised(office.Proclaim(ctx, value)) }
	case "election.transfer":
		typed = func(ctx context.Context) (any, error) {
			return named[uint64]("fence")(office.Transfer(ctx, a.text("candidate")))
		}
	case "election.leader":
		typed = func(ctx context.Context) (any, error) { return c.Leader(ctx, a.text("name")) }
	case "election.candidates":
		typed = func(ctx context.Context) (any, error) {
			return named[[]tenure.Candidate]("candidates")(c.Candidates(ctx, a.text("name")))
		}
	case "election.list":
		typed = func(ctx context.Context) (any, error) {
			return named[[]tenure.ElectionView]("elections")(c.ListElections(ctx, a.text("prefix")))
		}
	case "member.groups":
		typed = func(ctx context.Context) (any, error) {
			return named[[]tenure.GroupView]("groups")(c.ListGroups(ctx, a.text("prefix")))
		}
	case "member.join":
		options := tenure.JoinOptions{ID: a.text("id"), Value: value, Address: a.text("address"), Zone: a.text("zone"),
			Weight: a.number("weight"), Metadata: a.metadata(), State: a.text("state"), Label: a.text("label"),
			LeaveWhenCritical: a.duration("leave_when_critical_ms"), Lease: a.duration("lease_ms")}
		if checks, told := params["checks"]; told {
			text, _ := json.Marshal(checks)
			_ = json.Unmarshal(text, &options.Checks)
		}
		typed = func(ctx context.Context) (any, error) { return orNil(c.Join(ctx, a.text("group"), options)) }
	case "member.update":
		change := tenure.MemberChange{Value: value, Address: a.pointer("address"), Zone: a.pointer("zone"),
			Weight: a.number("weight"), Metadata: a.metadata(), State: a.text("state")}
		typed = func(ctx context.Context) (any, error) { return revised(member.Update(ctx, change)) }
	case "member.beat":
		typed = func(ctx context.Context) (any, error) { return done(member.Beat(ctx)) }
	case "member.list":
		typed = func(ctx context.Context) (any, error) { return c.ListMembers(ctx, a.text("group"), a.text("after")) }
	case "kv.get":
		options := tenure.GetOptions{Revision: uint64(a.number("revision")), Bucket: a.text("bucket")}
		typed = func(ctx context.Context) (any, error) {
			if options == (tenure.GetOptions{}) {
				return named[*tenure.Entry]("entry")(c.Get(ctx, key))
			}
			return named[*tenure.Entry]("entry")(c.GetWith(ctx, key, options))
		}
	case "kv.put", "kv.create", "kv.update":
		options := tenure.PutOptions{TTL: a.duration("ttl_ms"), FencedBy: fencedBy, Fence: uint64(a.number("fence")),
			Lock: a.text("lock"), Election: a.text("election"), Bucket: a.text("bucket")}
		revision := uint64(a.number("revision"))
		typed = func(ctx context.Context) (any, error) {
			switch method {
			case "kv.create":
				return revised(c.Create(ctx, key, value, options))
			case "kv.update":
				return revised(c.Update(ctx, key, value, revision, options))
			}
			return revised(c.Put(ctx, key, value, options))
		}
	case "kv.delete", "kv.purge":
		options := tenure.DeleteOptions{Revision: uint64(a.number("revision")), FencedBy: fencedBy, Fence: uint64(a.number("fence")),
			Lock: a.text("lock"), Election: a.text("election"), Bucket: a.text("bucket")}
		typed = func(ctx context.Context) (any, error) {
			if method == "kv.purge" {
				return revised(c.Purge(ctx, key, options))
			}
			return revised(c.Delete(ctx, key, options))
		}
	case "kv.keys":
		typed = func(ctx context.Context) (any, error) {
			options := tenure.KeysOptions{Prefix: a.text("prefix"), After: a.text("after"), Bucket: a.text("bucket")}
			if options.After != "" {
				return c.ListKeys(ctx, options)
			}
			return named[[]string]("keys")(c.Keys(ctx, options))
		}
	case "kv.history":
		typed = func(ctx context.Context) (any, error) {
			return named[[]tenure.Entry]("entries")(c.History(ctx, key, tenure.HistoryOptions{Bucket: a.text("bucket")}))
		}
	case "hello":
	default:
		typed = func(context.Context) (any, error) { return nil, errors.New("there is no typed method for " + method) }
	}
	if a.inexpressible {
		return nil
	}
	return typed
}
