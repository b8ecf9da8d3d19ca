package tenure_test

// The driver of the shared vectors: ../vectors/README.md says what they mean.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	tenure "tenure/clients/go"
)

type object = map[string]any

type outcome struct {
	result any
	err    error
}

type call struct {
	on     string
	done   chan outcome
	cancel context.CancelFunc
}

type run struct {
	t             *testing.T
	daemon        *daemon
	options       object
	variables     object
	clients       map[string]*tenure.Client
	leases        map[string]any
	started       map[string]*call
	subscriptions map[string]*tenure.Subscription
}

func TestVectors(t *testing.T) {
	files, _ := filepath.Glob("../vectors/*.json")
	if len(files) == 0 {
		t.Fatal("there are no vectors")
	}
	shared := start(t)
	capabilities := shared.connect(t, tenure.Options{})
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		for _, one := range parse(t, data).(object)["cases"].([]any) {
			vector := one.(object)
			t.Run(name+"/"+vector["name"].(string), func(t *testing.T) {
				needs, _ := vector["needs"].([]any)
				for _, method := range needs {
					if !capabilities.Supports(method.(string)) {
						t.Skipf("%s: this daemon does not serve %s", vector["name"], method)
					}
				}
				d := shared
				if flags, own := vector["daemon"].([]any); own {
					texts := make([]string, len(flags))
					for i, flag := range flags {
						texts[i] = strings.ReplaceAll(flag.(string), "${vectors}", "../vectors")
					}
					d = start(t, texts...)
				}
				runVector(t, d, vector)
			})
		}
	}
}

func runVector(t *testing.T, d *daemon, vector object) {
	options, _ := vector["clients"].(object)
	r := &run{
		t: t, daemon: d, options: options, clients: map[string]*tenure.Client{}, leases: map[string]any{},
		started: map[string]*call{}, subscriptions: map[string]*tenure.Subscription{},
		variables: object{"case": fmt.Sprintf("v%d", numbers.Add(1)), "x400": strings.Repeat("x", 400), "x800": strings.Repeat("x", 800),
			"x1024": strings.Repeat("x", 1024), "x2048": strings.Repeat("x", 2048)},
	}
	for number, one := range vector["steps"].([]any) {
		if err := r.step(one.(object)); err != nil {
			text, _ := json.Marshal(one)
			t.Fatalf("step %d %s: %v", number, text, err)
		}
	}
}

var whole, inside = regexp.MustCompile(`^\$\w+$`), regexp.MustCompile(`\$\{(\w+)\}`)

func (r *run) filled(thing any) any {
	switch thing := thing.(type) {
	case object:
		filled := object{}
		for name, value := range thing {
			filled[name] = r.filled(value)
		}
		return filled
	case []any:
		filled := make([]any, len(thing))
		for i, value := range thing {
			filled[i] = r.filled(value)
		}
		return filled
	case string:
		if whole.MatchString(thing) {
			return r.variables[thing[1:]]
		}
		return inside.ReplaceAllStringFunc(thing, func(name string) string { return fmt.Sprint(r.variables[name[2:len(name)-1]]) })
	}
	return thing
}

// differs says why found does not match.
func differs(pattern, found any, where string) error {
	switch pattern := pattern.(type) {
	case object:
		for name, operand := range pattern {
			list, _ := found.([]any)
			var err error
			switch name {
			case "$any":
				if found == nil {
					err = fmt.Errorf("%s is missing", where)
				}
			case "$gt":
				if number, ok := found.(float64); !ok || number <= operand.(float64) {
					err = fmt.Errorf("%s is %v and not greater than %v", where, found, operand)
				}
			case "$len":
				if float64(len(list)) != operand {
					err = fmt.Errorf("%s is %v and has not %v elements", where, found, operand)
				}
			case "$has":
				err = fmt.Errorf("%s is %v and has no %v", where, found, operand)
				for _, one := range list {
					if differs(operand, one, where) == nil {
						err = nil
					}
				}
			default:
				members, ok := found.(object)
				if !ok {
					return fmt.Errorf("%s is %v and no object", where, found)
				}
				err = differs(operand, members[name], where+"."+name)
			}
			if err != nil {
				return err
			}
		}
		return nil
	case []any:
		list, ok := found.([]any)
		if !ok || len(list) != len(pattern) {
			return fmt.Errorf("%s is %v and not %v", where, found, pattern)
		}
		for i, one := range pattern {
			if err := differs(one, list[i], where+"."+strconv.Itoa(i)); err != nil {
				return err
			}
		}
		return nil
	}
	if !reflect.DeepEqual(pattern, found) {
		return fmt.Errorf("%s is %v and not %v", where, found, pattern)
	}
	return nil
}

func (r *run) save(step object, found any) {
	paths, _ := step["save"].(object)
	for name, path := range paths {
		part := found
		for _, key := range strings.Split(path.(string), ".") {
			if list, ok := part.([]any); ok {
				index, _ := strconv.Atoi(key)
				part = list[index]
			} else {
				part = part.(object)[key]
			}
		}
		r.variables[name] = part
	}
}

func (r *run) client(name string) *tenure.Client {
	if r.clients[name] == nil {
		given, _ := r.options[name].(object)
		var options tenure.Options
		if heartbeat, told := given["heartbeat_ms"]; told {
			options.Heartbeat = -1
			if ms, ok := heartbeat.(float64); ok {
				options.Heartbeat = time.Duration(ms) * time.Millisecond
			}
		}
		options.ManualPing = given["ping"] == false
		if events, ok := given["events"].(float64); ok {
			options.Events = int(events)
		}
		r.clients[name] = r.daemon.connect(r.t, options)
	}
	return r.clients[name]
}

func name(step object, member string) string {
	text, _ := step[member].(string)
	return text
}

func (r *run) step(step object) error {
	on := name(step, "on")
	if on == "" {
		on = "a"
	}
	soon, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	has := func(member string) bool { _, there := step[member]; return there }
	switch {
	case has("call"):
		return r.call(step, on)
	case has("in_flight"):
		client := r.client(on)
		until(r.t, "enough in flight", func() bool { return float64(client.InFlight()) >= step["in_flight"].(float64) })
	case has("await"):
		return r.finish(step, r.started[name(step, "await")])
	case has("cancel"):
		r.started[name(step, "cancel")].cancel()
	case has("subscribe"):
		client, p := r.client(on), r.filled(step["params"]).(object)
		var err error
		var s *tenure.Subscription
		switch step["subscribe"] {
		case "lock.observe":
			s, err = client.ObserveLock(soon, name(p, "name"))
		case "election.observe":
			s, err = client.Observe(soon, name(p, "name"))
		case "member.watch":
			s, err = client.WatchMembers(soon, name(p, "group"))
		case "kv.watch":
			from, _ := p["from_revision"].(float64)
			s, err = client.Watch(soon, tenure.WatchOptions{Key: name(p, "key"), Prefix: name(p, "prefix"),
				FromRevision: uint64(from), UpdatesOnly: p["updates_only"] == true, Bucket: name(p, "bucket")})
		default:
			return errors.New("unknown subscription")
		}
		r.subscriptions[name(step, "as")] = s
		return err
	case has("event"):
		pattern := r.filled(step["match"])
		for {
			event, err := r.subscriptions[name(step, "event")].Next(soon)
			if err != nil {
				return err
			}
			text, _ := json.Marshal(event)
			found := parse(r.t, text)
			err = differs(pattern, found, "the event")
			if err == nil {
				r.save(step, found)
				return nil
			}
			if step["next"] == true || event.Kind == "end" {
				return err
			}
		}
	case has("unsubscribe"):
		s := r.subscriptions[name(step, "unsubscribe")]
		if err := s.Close(soon); err != nil {
			return err
		}
		if event, err := s.Next(soon); err == nil {
			return fmt.Errorf("there came %v", event)
		}
	case has("state"):
		lease := base(r.leases[on+"/"+r.filled(step["lease"]).(string)])
		select {
		case <-lease.Lost():
		case <-soon.Done():
			return soon.Err()
		}
		var told *tenure.Error
		if !errors.As(lease.Err(), &told) || told.Reason != step["reason"] || lease.Held() || lease.State() != tenure.StateLost {
			return fmt.Errorf("%v, %s", lease.Err(), lease.State())
		}
	case has("asked"):
		office := r.leases[on+"/"+r.filled(step["asked"]).(string)].(*tenure.Office)
		select {
		case <-office.Asked():
		case <-soon.Done():
			return soon.Err()
		}
		text, _ := json.Marshal(office.AskedBy())
		return differs(r.filled(step["match"]), parse(r.t, text), "the candidate")
	case has("resume"):
		r.save(step, object{"revision": float64(r.subscriptions[name(step, "resume")].ResumeRevision())})
	case has("leaving"):
		client := r.client(name(step, "leaving"))
		select {
		case <-client.Leaving():
		case <-soon.Done():
			return soon.Err()
		}
		if client.LeavingIn() <= 0 {
			return fmt.Errorf("it leaves in %v", client.LeavingIn())
		}
	case has("close"):
		return r.client(name(step, "close")).Close()
	case has("closed"):
		select {
		case <-r.client(name(step, "closed")).Closed():
		case <-soon.Done():
			return soon.Err()
		}
	case has("daemon"):
		r.daemon.signal(r.t, map[string]syscall.Signal{
			"stop": syscall.SIGSTOP, "kill": syscall.SIGKILL, "term": syscall.SIGTERM}[name(step, "daemon")])
	case has("compare"):
		three := r.filled(step["compare"]).([]any)
		var ok bool
		switch three[1] {
		case "<":
			ok = three[0].(float64) < three[2].(float64)
		case "=":
			ok = three[0] == three[2]
		case "!=":
			ok = three[0] != three[2]
		}
		if !ok {
			return fmt.Errorf("%v", three)
		}
	default:
		return errors.New("unknown step")
	}
	return nil
}

func (r *run) call(step object, on string) error {
	params, _ := r.filled(step["params"]).(object)
	if as := name(step, "as"); as != "" {
		r.started[as] = r.begin(step, on, params)
		return nil
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		err := r.finish(step, r.begin(step, on, params))
		if err == nil || step["eventually"] != true || time.Now().After(deadline) {
			return err
		}
	}
}

func (r *run) begin(step object, on string, params object) *call {
	ctx, cancel := context.WithCancel(context.Background())
	c := &call{on: on, done: make(chan outcome, 1), cancel: cancel}
	client, method := r.client(on), name(step, "call")
	var typed func(context.Context) (any, error)
	if step["raw"] != true {
		typed = typedCall(client, func(handle string) any { return r.leases[on+"/"+handle] }, method, params)
	}
	go func() {
		var o outcome
		if typed != nil {
			o.result, o.err = typed(ctx)
		} else {
			o.result, o.err = client.Call(ctx, method, params)
		}
		c.done <- o
	}()
	return c
}

func (r *run) finish(step object, c *call) error {
	var o outcome
	select {
	case o = <-c.done:
	case <-time.After(patience):
		return errors.New("no answer came")
	}
	if lease := base(o.result); lease != nil && step["cancelled"] == "or held" {
		return lease.Release(context.Background())
	}
	if step["cancelled"] != nil {
		if !errors.Is(o.err, context.Canceled) {
			return fmt.Errorf("it was not cancelled: %v, %v", o.result, o.err)
		}
		return nil
	}
	var found, pattern any
	var told *tenure.Error
	switch {
	case errors.As(o.err, &told):
		pattern = step["error"]
		if pattern == nil {
			return fmt.Errorf("it failed: %s %s", told.Kind, told)
		}
		found = errorJSON(r.t, told)
	case o.err != nil:
		return o.err
	default:
		if step["error"] != nil {
			return fmt.Errorf("it came to %v", o.result)
		}
		pattern = step["result"]
		if pattern == nil {
			pattern = object{}
		}
		if handle, ok := o.result.(tenure.Holding); ok {
			r.leases[c.on+"/"+handle.Handle()] = o.result
		}
		text, err := json.Marshal(dump(o.result))
		if err != nil {
			return err
		}
		found = parse(r.t, text)
	}
	if err := differs(r.filled(pattern), found, "it"); err != nil {
		return err
	}
	r.save(step, found)
	return nil
}

func errorJSON(t *testing.T, told *tenure.Error) any {
	found := object{}
	for name, raw := range told.Data {
		found[name] = parse(t, raw)
	}
	found["kind"], found["retryable"], found["code"] = told.Kind, told.Retryable, float64(told.Code)
	for name, text := range map[string]string{"reason": told.Reason, "limit": told.Limit, "param": told.Param} {
		if text != "" {
			found[name] = text
		}
	}
	return found
}
