// One of the five: counts under the lock, leads once, and is in the group. run.py starts it; README.md says what it does.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	tenure "tenure/clients/go"
)

var speaking sync.Mutex

func say(event string, details map[string]any) {
	speaking.Lock()
	defer speaking.Unlock()
	line := map[string]any{"event": event}
	for name, detail := range details {
		line[name] = detail
	}
	_ = json.NewEncoder(os.Stdout).Encode(line)
}

func awaitEverybody(ctx context.Context, client *tenure.Client, everybody int) error {
	events, err := client.WatchMembers(ctx, "fleet")
	if err != nil {
		return err
	}
	defer events.Close(ctx)
	var there []string
	for event := range events.All(ctx) {
		switch event.Kind {
		case "join":
			there = append(there, event.Member.ID)
		case "leave":
			there = slices.DeleteFunc(there, func(id string) bool { return id == event.ID })
		case "end":
			return fmt.Errorf("the group cannot be watched: %s", event.Reason)
		}
		if len(there) == everybody {
			slices.Sort(there)
			say("members", map[string]any{"ids": there})
			return nil
		}
	}
	return errors.New("the group cannot be watched")
}

func count(ctx context.Context, client *tenure.Client, rounds int, counter string) error {
	for range rounds {
		err := client.WithLock(ctx, "fleet.counter", tenure.LockOptions{Label: "go"}, func(ctx context.Context, lock *tenure.Lock) error {
			text, err := os.ReadFile(counter)
			if err != nil {
				return err
			}
			value, err := strconv.Atoi(strings.TrimSpace(string(text)))
			if err != nil {
				return err
			}
			next := []byte(strconv.Itoa(value + 1))
			if _, err := client.Put(ctx, "fleet.count", next, tenure.PutOptions{FencedBy: lock}); err != nil {
				return err
			}
			if err := os.WriteFile(counter, next, 0o600); err != nil {
				return err
			}
			say("count", map[string]any{"value": value + 1, "fence": lock.Fence()})
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func lead(ctx context.Context, client *tenure.Client, name string) error {
	return client.WhileLeader(ctx, "fleet.leader", tenure.CampaignOptions{Value: []byte(name)}, func(ctx context.Context, office *tenure.Office) error {
		if _, err := client.Put(ctx, "fleet.led-by", []byte(name), tenure.PutOptions{FencedBy: office}); err != nil {
			return err
		}
		found, err := client.Leader(ctx, "fleet.leader")
		if err != nil {
			return err
		}
		if found.Leader == nil || string(found.Leader.Value) != name {
			return fmt.Errorf("elected, and %v leads", found.Leader)
		}
		say("leader", map[string]any{"term": office.Fence()})
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
		}
		return ctx.Err()
	})
}

func run(ctx context.Context, name string, everybody, rounds int, counter string) error {
	client, err := tenure.Connect(ctx, tenure.Options{})
	if err != nil {
		return err
	}
	defer client.Close()
	place, err := client.Join(ctx, "fleet", tenure.JoinOptions{ID: name, Value: []byte("go")})
	if err != nil {
		return err
	}
	if err := awaitEverybody(ctx, client, everybody); err != nil {
		return err
	}
	led := make(chan error, 1)
	go func() { led <- lead(ctx, client, name) }()
	if err := errors.Join(count(ctx, client, rounds, counter), <-led); err != nil {
		return err
	}
	say("done", nil)
	// A member until the runner has seen all.
	_, _ = io.Copy(io.Discard, os.Stdin)
	return place.Leave(ctx)
}

func main() {
	everybody, _ := strconv.Atoi(os.Args[2])
	rounds, _ := strconv.Atoi(os.Args[3])
	if err := run(context.Background(), os.Args[1], everybody, rounds, os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
