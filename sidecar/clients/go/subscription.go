package tenure

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"sync"
)

// Subscription is the events of one subscription.
type Subscription struct {
	client *Client
	handle string
	room   int

	mu     sync.Mutex
	events []Event
	resume uint64
	over   bool
	filled chan struct{}
}

// Next returns the next event, and [io.EOF] after the last one, which has Kind "end".
func (s *Subscription) Next(ctx context.Context) (Event, error) {
	for {
		s.mu.Lock()
		if len(s.events) > 0 {
			event := s.events[0]
			s.events = s.events[1:]
			switch event.Kind {
			case "put", "delete", "purge", "expire":
				s.resume = event.Revision + 1
			case "gap":
				if event.ResumeRevision != 0 {
					s.resume = event.ResumeRevision
				}
			}
			if len(s.events) > 0 {
				s.wake()
			}
			s.mu.Unlock()
			return event, nil
		}
		over := s.over
		s.mu.Unlock()
		if over {
			s.wake() // for whoever else waits
			return Event{}, io.EOF
		}
		select {
		case <-ctx.Done():
			return Event{}, ctx.Err()
		case <-s.filled:
		}
	}
}

// ResumeRevision is, of a watch of keys, where to go on after what [Subscription.Next] has returned: the FromRevision of the next
// one. It is 0 while nothing was told.
func (s *Subscription) ResumeRevision() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.resume
}

// All is the events until the last one, or until ctx is done.
func (s *Subscription) All(ctx context.Context) iter.Seq[Event] {
	return func(yield func(Event) bool) {
		for {
			event, err := s.Next(ctx)
			if err != nil || !yield(event) {
				return
			}
		}
	}
}

// Close ends it; no event comes after that.
func (s *Subscription) Close(ctx context.Context) error {
	s.mu.Lock()
	over := s.over
	s.over, s.events = true, nil
	s.mu.Unlock()
	s.wake()
	if over {
		return nil
	}
	s.client.forgetSubscription(s.handle)
	_, err := s.client.Call(ctx, "subscription.cancel", map[string]any{"subscription": s.handle})
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrUnavailable) {
		return nil // it has ended already
	}
	return err
}

func (s *Subscription) wake() {
	select {
	case s.filled <- struct{}{}:
	default:
	}
}

func (s *Subscription) tell(raw json.RawMessage) {
	var event Event
	if json.Unmarshal(raw, &event) == nil {
		s.add(event)
	}
}

func (s *Subscription) add(event Event) {
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return
	}
	slow := len(s.events) >= s.room
	if slow {
		event = Event{Kind: "end", Reason: "slow_reader"}
	}
	s.events = append(s.events, event)
	s.over = event.Kind == "end"
	over := s.over
	s.mu.Unlock()
	s.wake()
	if over {
		s.client.forgetSubscription(s.handle)
	}
	if slow {
		s.client.conn.post("subscription.cancel", map[string]any{"subscription": s.handle})
	}
}
