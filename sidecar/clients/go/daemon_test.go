package tenure_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	tenure "tenure/clients/go"
)

// patience is longer than anything here takes on a busy machine.
const patience = 30 * time.Second

var numbers atomic.Int64

// daemon is a tenured for tests, killed at their end.
type daemon struct {
	socket  string
	process *exec.Cmd
}

func tenured(t testing.TB) string {
	found := os.Getenv("TENURED")
	if found == "" {
		found, _ = filepath.Abs("../../../target/debug/tenured")
	}
	if _, err := os.Stat(found); err != nil {
		t.Fatalf("there is no %s; build it with `cargo build -p tenure-sidecar`, or name it in $TENURED", found)
	}
	return found
}

func start(t testing.TB, flags ...string) *daemon {
	t.Helper()
	dir, err := os.MkdirTemp("", "tenure-go-")
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{socket: filepath.Join(dir, "s.sock")}
	d.process = exec.Command(tenured(t), append([]string{
		"--store", "memory:", "--lease", "30s", "--log", "error", "--socket", d.socket}, flags...)...)
	d.process.Stderr = os.Stderr
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "TENURE") {
			d.process.Env = append(d.process.Env, variable)
		}
	}
	if err := d.process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = d.process.Process.Kill()
		_ = d.process.Wait()
		_ = os.RemoveAll(dir)
	})
	until(t, "tenured listens", func() bool {
		client, err := tenure.Connect(context.Background(), tenure.Options{Socket: d.socket})
		if err != nil {
			return false
		}
		defer client.Close()
		// A new bucket grants nothing for one lease. On a busy machine so short a one may be lost meanwhile.
		lock, err := client.Lock(context.Background(), "settle", tenure.LockOptions{Lease: 500 * time.Millisecond})
		if err != nil {
			return false
		}
		_ = lock.Release(context.Background())
		return true
	})
	return d
}

func (d *daemon) connect(t testing.TB, options tenure.Options) *tenure.Client {
	t.Helper()
	options.Socket = d.socket
	client, err := tenure.Connect(context.Background(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func (d *daemon) signal(t testing.TB, signal syscall.Signal) {
	t.Helper()
	if err := d.process.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
	if signal != syscall.SIGSTOP {
		return
	}
	until(t, "every thread stands still", func() bool {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", d.process.Process.Pid))
		for _, thread := range threads {
			stat, _ := os.ReadFile(thread)
			if _, after, _ := strings.Cut(string(stat), ") "); !strings.HasPrefix(after, "T") {
				return false
			}
		}
		return true
	})
}

func until(t testing.TB, what string, check func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !check(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// parse reads JSON that is known to be right.
func parse(t testing.TB, data []byte) any {
	t.Helper()
	var value any
	if err := json.Unmarshal(data, &value); err != nil {
		t.Fatalf("%v: %s", err, data)
	}
	return value
}
