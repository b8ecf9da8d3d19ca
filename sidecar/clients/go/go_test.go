package tenure_test

// What is Go's own, and what only a scripted daemon shows.

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	tenure "tenure/clients/go"
)

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func TestWithLock(t *testing.T) {
	d := start(t)
	client, ctx := d.connect(t, tenure.Options{}), within(t)
	t.Run("releases whatever happens", func(t *testing.T) {
		sentinel := errors.New("mine")
		err := client.WithLock(ctx, "a", tenure.LockOptions{}, func(ctx context.Context, lock *tenure.Lock) error {
			if !lock.Held() {
				t.Error("not held")
			}
			return sentinel
		})
		if !errors.Is(err, sentinel) {
			t.Fatal(err)
		}
		func() {
			defer func() { _ = recover() }()
			_ = client.WithLock(ctx, "a", tenure.LockOptions{}, func(context.Context, *tenure.Lock) error { panic("x") })
		}()
		view, err := client.GetLock(ctx, "a")
		if err != nil || view.Holder != nil {
			t.Fatal(view, err)
		}
	})
	t.Run("cancels what runs under a lock that is lost", func(t *testing.T) {
		err := client.WithLock(ctx, "b", tenure.LockOptions{}, func(inside context.Context, lock *tenure.Lock) error {
			var states []tenure.State
			told := make(chan struct{})
			lock.OnChange(func(state tenure.State) { states = append(states, state); close(told) })
			if err := client.BreakLock(ctx, "b", lock.Fence()); err != nil {
				t.Error(err)
			}
			<-inside.Done()
			<-told
			if len(states) != 1 || states[0] != tenure.StateLost || !errors.Is(context.Cause(inside), tenure.ErrLost) {
				t.Error(states, context.Cause(inside))
			}
			return inside.Err()
		})
		if !errors.Is(err, tenure.ErrLost) || errors.Is(err, tenure.ErrConflict) {
			t.Fatal(err)
		}
	})
	t.Run("releases although its context is over", func(t *testing.T) {
		short, cancel := context.WithCancel(ctx)
		err := client.WithLock(short, "c", tenure.LockOptions{}, func(inside context.Context, _ *tenure.Lock) error {
			cancel()
			<-inside.Done()
			return inside.Err()
		})
		view, looked := client.GetLock(ctx, "c")
		if !errors.Is(err, context.Canceled) || looked != nil || view.Holder != nil {
			t.Fatal(err, looked, view)
		}
	})
}

func TestNobodyListens(t *testing.T) {
	_, err := tenure.Connect(within(t), tenure.Options{Socket: "/nonexistent/s.sock"})
	if !errors.Is(err, tenure.ErrUnavailable) || !strings.Contains(err.Error(), "start tenured") {
		t.Fatal(err)
	}
}

func TestDefaultSocket(t *testing.T) {
	t.Setenv("TENURE_SOCKET", "")
	t.Setenv("XDG_RUNTIME_DIR", "")
	if found := tenure.DefaultSocket(); found != "/run/tenure/tenured.sock" {
		t.Fatal(found)
	}
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/7")
	if found := tenure.DefaultSocket(); found != "/run/user/7/tenure/tenured.sock" {
		t.Fatal(found)
	}
	t.Setenv("TENURE_SOCKET", "/x")
	if found := tenure.DefaultSocket(); found != "/x" {
		t.Fatal(found)
	}
}

func TestADaemonThatSaysNothingEndsTheConnection(t *testing.T) {
	d := start(t)
	client := d.connect(t, tenure.Options{Heartbeat: 600 * time.Millisecond})
	lock, err := client.Lock(within(t), "a", tenure.LockOptions{})
	if err != nil {
		t.Fatal(err)
	}
	d.signal(t, syscall.SIGSTOP)
	select {
	case <-lock.Lost():
	case <-time.After(patience):
		t.Fatal("not lost")
	}
	var told *tenure.Error
	if !errors.As(lock.Err(), &told) || told.Reason != "daemon_silent" {
		t.Fatal(lock.Err())
	}
	<-client.Closed()
}

// script plays a daemon: it hands over each message but hello and ping, and says what it is given.
type script struct {
	t        *testing.T
	messages chan object
	stream   net.Conn
	client   *tenure.Client
}

func play(t *testing.T) *script {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	s := &script{t: t, messages: make(chan object, 16)}
	connected := make(chan struct{})
	go func() {
		defer close(s.messages)
		stream, err := listener.Accept()
		if err != nil {
			return
		}
		s.stream = stream
		close(connected)
		for lines := bufio.NewScanner(stream); lines.Scan(); {
			var message object
			if json.Unmarshal(lines.Bytes(), &message) != nil {
				return
			}
			switch message["method"] {
			case "hello":
				s.say(object{"id": message["id"], "result": object{"protocol": 1, "later": 1, "limits": object{"later": 1}}})
			case "ping":
			default:
				s.messages <- message
			}
		}
	}()
	s.client, err = tenure.Connect(within(t), tenure.Options{Socket: socket})
	if err != nil {
		t.Fatal(err)
	}
	<-connected
	t.Cleanup(func() { s.client.Close() })
	return s
}

func (s *script) say(messages ...object) {
	var lines []byte
	for _, message := range messages {
		line, _ := json.Marshal(message)
		lines = append(append(lines, line...), '\n')
	}
	_, _ = s.stream.Write(lines)
}

func (s *script) heard(method string) object {
	s.t.Helper()
	select {
	case message := <-s.messages:
		if message["method"] != method {
			s.t.Fatalf("%v and not %s", message, method)
		}
		return message
	case <-time.After(patience):
		s.t.Fatalf("no %s came", method)
		return nil
	}
}

func TestALeaseThatIsLostInTheSameBreathIsTold(t *testing.T) {
	s := play(t)
	locked := make(chan *tenure.Lock, 1)
	go func() {
		lock, _ := s.client.Lock(context.Background(), "x", tenure.LockOptions{})
		locked <- lock
	}()
	asked := s.heard("lock.acquire")
	s.say(object{"id": asked["id"], "result": object{"lease": "l_1", "fence": uint64(1<<53 - 1), "later": 1}, "later": 1},
		object{"method": "later", "params": object{}},
		object{"method": "lease", "params": object{"lease": "l_1", "state": "lost", "reason": "later_reason", "later": 2}})
	lock := <-locked
	<-lock.Lost()
	var told *tenure.Error
	if !errors.As(lock.Err(), &told) || told.Reason != "later_reason" || lock.Fence() != 1<<53-1 {
		t.Fatal(lock.Err(), lock.Fence())
	}
}

func TestALeaseThatComesAfterItsWaitWasCancelledGoesBack(t *testing.T) {
	s := play(t)
	ctx, cancel := context.WithCancel(context.Background())
	failed := make(chan error, 1)
	go func() {
		_, err := s.client.Lock(ctx, "x", tenure.LockOptions{})
		failed <- err
	}()
	asked := s.heard("lock.acquire")
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	cancelled := s.heard("cancel")
	if _, answered := cancelled["id"]; answered || cancelled["params"].(object)["id"] != asked["id"] {
		t.Fatal(cancelled)
	}
	s.say(object{"id": asked["id"], "result": object{"lease": "l_5", "fence": 5}})
	if release := s.heard("lock.release"); release["params"].(object)["lease"] != "l_5" {
		t.Fatal(release)
	}
}

func TestALeaseThatIsInDoubtIsToldAndToldToBeKept(t *testing.T) {
	s := play(t)
	locked := make(chan *tenure.Lock, 1)
	go func() {
		lock, _ := s.client.Lock(context.Background(), "x", tenure.LockOptions{})
		locked <- lock
	}()
	s.say(object{"id": s.heard("lock.acquire")["id"], "result": object{"lease": "l_1", "fence": 1}})
	lock := <-locked
	states := make(chan tenure.State, 8)
	lock.OnChange(func(state tenure.State) { states <- state })
	for _, state := range []string{"suspect", "restored"} {
		s.say(object{"method": "lease", "params": object{"lease": "l_1", "state": state}})
	}
	if first, second := <-states, <-states; first != tenure.StateSuspect || second != tenure.StateHeld || !lock.Held() {
		t.Fatal(first, second, lock.State())
	}
}

func TestNothingIsLeftOfAClientThatWasClosed(t *testing.T) {
	// Goroutines of the client, and not of this test.
	running := func() bool {
		stacks := make([]byte, 1<<20)
		return strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "clients/go.(*")
	}
	d := start(t)
	for _, ends := range []string{"closed", "disconnected"} {
		client, ctx := d.connect(t, tenure.Options{}), within(t)
		lock, err := client.Lock(ctx, "a", tenure.LockOptions{})
		if err != nil {
			t.Fatal(err)
		}
		inside, cancel := lock.Context(ctx)
		defer cancel()
		watch, err := client.Watch(ctx, tenure.WatchOptions{})
		if err != nil {
			t.Fatal(err)
		}
		failed := make(chan error, 1)
		go func() {
			_, err := client.Lock(ctx, "a", tenure.LockOptions{})
			failed <- err
		}()
		until(t, "it waits", func() bool { return client.InFlight() == 1 })
		if !running() {
			t.Fatal("its goroutines are not seen")
		}
		if ends == "closed" {
			client.Close()
		} else {
			d.signal(t, syscall.SIGKILL)
		}
		if err := <-failed; !errors.Is(err, tenure.ErrUnavailable) {
			t.Fatal(err)
		}
		<-inside.Done()
		var last tenure.Event
		for event := range watch.All(ctx) {
			last = event
		}
		if last.Kind != "end" || last.Reason != ends {
			t.Fatal(last)
		}
		client.Close()
	}
	until(t, "all its goroutines have ended", func() bool { return !running() })
}

func TestAGapIsHandedOnAndTheWatchKnowsWhereToGoOn(t *testing.T) {
	s := play(t)
	watching := make(chan *tenure.Subscription, 1)
	go func() {
		watch, _ := s.client.Watch(context.Background(), tenure.WatchOptions{})
		watching <- watch
	}()
	event := func(kind string, more object) object {
		more["subscription"], more["kind"] = "w_1", kind
		return object{"method": "event", "params": more}
	}
	asked := s.heard("kv.watch")
	if params := asked["params"].(object); len(params) != 1 || params["prefix"] != "" {
		t.Fatal(params)
	}
	s.say(object{"id": asked["id"], "result": object{"subscription": "w_1"}},
		event("put", object{"key": "k", "value": "x", "revision": 5}), event("gap", object{"resume_revision": 9}),
		event("delete", object{"key": "k", "revision": 12}), event("gap", object{}), event("end", object{"reason": "slow_reader"}))
	watch := <-watching
	told := fmt.Sprint(watch.ResumeRevision())
	for event := range watch.All(within(t)) {
		told += fmt.Sprint(" ", event.Kind, " ", watch.ResumeRevision())
	}
	if told != "0 put 6 gap 9 delete 13 gap 13 end 13" {
		t.Fatal(told)
	}
}

func TestErrorsOfALaterVersionAreStillErrors(t *testing.T) {
	s := play(t)
	for _, step := range []struct {
		said      object
		kind      string
		retryable bool
	}{
		{object{"code": 77, "message": "m", "data": object{"kind": "newer", "retryable": true}}, "newer", true},
		{object{"code": -32603, "message": "m"}, "internal", false},
	} {
		failed := make(chan error, 1)
		go func() {
			_, err := s.client.Status(context.Background())
			failed <- err
		}()
		s.say(object{"id": s.heard("status")["id"], "error": step.said})
		var told *tenure.Error
		if err := <-failed; !errors.As(err, &told) || told.Kind != step.kind || told.Retryable != step.retryable {
			t.Fatal(err)
		}
	}
}

func TestLeavingIsTold(t *testing.T) {
	s := play(t)
	s.say(object{"method": "goaway", "params": object{"deadline_ms": 70}})
	<-s.client.Leaving()
	if s.client.LeavingIn() != 70*time.Millisecond {
		t.Fatal(s.client.LeavingIn())
	}
}

func TestTheFirstExampleOfTheReadmeWorks(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("go_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, shown, _ := strings.Cut(string(readme), "```go\n")
	if shown, _, _ = strings.Cut(shown, "```"); !strings.Contains(string(source), strings.ReplaceAll(shown,
		"(ctx, tenure.Options{}) // $TENURE_SOCKET, or where tenured listens by default", "(ctx, tenure.Options{})")) {
		t.Fatal("the README shows something else than what is run here")
	}
	d := start(t)
	t.Setenv("TENURE_SOCKET", d.socket)
	if err := example(within(t)); err != nil {
		t.Fatal(err)
	}
	entry, err := d.connect(t, tenure.Options{}).Get(within(t), "report")
	if err != nil || entry == nil || string(entry.Value) != "done" {
		t.Fatal(entry, err)
	}
}

// example is the README's, word for word.
func example(ctx context.Context) error {
	client, err := tenure.Connect(ctx, tenure.Options{})
	if err != nil {
		return err
	}
	defer client.Close()
	return client.WithLock(ctx, "nightly", tenure.LockOptions{}, func(ctx context.Context, lock *tenure.Lock) error {
		_, err := client.Put(ctx, "report", []byte("done"), tenure.PutOptions{FencedBy: lock})
		return err // ctx is cancelled when the lock is lost
	})
}
