package tenure

import (
	"context"
	"errors"
	"time"
)

// PutOptions of a write.
type PutOptions struct {
	// TTL forgets the value after that time.
	TTL time.Duration
	// FencedBy writes only while that lease of this client holds, which the store itself checks.
	FencedBy Holding
	// Fence, with Lock or Election, writes only while that lock is held with that token or that election led in that term.
	Fence    uint64
	Lock     string
	Election string
	Bucket   string
}

func (o PutOptions) params(key string, value []byte) map[string]any {
	params := with(map[string]any{"key": key}, text(value))
	set(params, "ttl_ms", toMillis(o.TTL))
	set(params, "fence", o.Fence)
	set(params, "lock", o.Lock)
	set(params, "election", o.Election)
	set(params, "bucket", o.Bucket)
	if o.FencedBy != nil {
		params["fence_lease"] = o.FencedBy.Handle()
	}
	return params
}

// Get returns the value of a key, nil where it has none.
func (c *Client) Get(ctx context.Context, key string) (*Entry, error) {
	return c.get(ctx, map[string]any{"key": key})
}

// GetOptions of a read.
type GetOptions struct {
	// Revision: only the value of that one.
	Revision uint64
	Bucket   string
}

// GetWith is as Get, with options.
func (c *Client) GetWith(ctx context.Context, key string, options GetOptions) (*Entry, error) {
	params := map[string]any{"key": key}
	set(params, "revision", options.Revision)
	set(params, "bucket", options.Bucket)
	return c.get(ctx, params)
}

func (c *Client) get(ctx context.Context, params map[string]any) (*Entry, error) {
	found, err := callAs[struct {
		Entry *Entry `json:"entry"`
	}](ctx, c, "kv.get", params)
	return found.Entry, err
}

// Put writes a value; it returns the revision. Where a fence does not hold the error is an [ErrConflict], [ErrLost] or
// [ErrNotHeld], and nothing is written.
func (c *Client) Put(ctx context.Context, key string, value []byte, options PutOptions) (uint64, error) {
	return c.revision(ctx, "kv.put", options.params(key, value))
}

// Create writes a value where there is none, else the error is an [ErrConflict]; it returns the revision.
func (c *Client) Create(ctx context.Context, key string, value []byte, options PutOptions) (uint64, error) {
	return c.revision(ctx, "kv.create", options.params(key, value))
}

// Update writes over that very revision, else the error is an [ErrConflict]; it returns the new one.
func (c *Client) Update(ctx context.Context, key string, value []byte, revision uint64, options PutOptions) (uint64, error) {
	params := options.params(key, value)
	params["revision"] = revision
	return c.revision(ctx, "kv.update", params)
}

// DeleteOptions of a deletion.
type DeleteOptions struct {
	// Revision: only if the value is still that one.
	Revision uint64
	// FencedBy, Fence, Lock and Election are as in [PutOptions].
	FencedBy Holding
	Fence    uint64
	Lock     string
	Election string
	Bucket   string
}

func (o DeleteOptions) params(key string) map[string]any {
	params := map[string]any{"key": key}
	set(params, "revision", o.Revision)
	set(params, "fence", o.Fence)
	set(params, "lock", o.Lock)
	set(params, "election", o.Election)
	set(params, "bucket", o.Bucket)
	if o.FencedBy != nil {
		params["fence_lease"] = o.FencedBy.Handle()
	}
	return params
}

// Delete deletes a key's value; it returns the revision of that.
func (c *Client) Delete(ctx context.Context, key string, options DeleteOptions) (uint64, error) {
	return c.revision(ctx, "kv.delete", options.params(key))
}

// Purge is as Delete, the key's history included.
func (c *Client) Purge(ctx context.Context, key string, options DeleteOptions) (uint64, error) {
	return c.revision(ctx, "kv.purge", options.params(key))
}

// KeysOptions say which keys to tell; all unless told.
type KeysOptions struct {
	Prefix string
	// After: only those that are sorted after that one.
	After  string
	Bucket string
}

// ListKeys tells one line's worth of the keys that have a value, sorted.
func (c *Client) ListKeys(ctx context.Context, options KeysOptions) (KeyPage, error) {
	params := map[string]any{}
	set(params, "prefix", options.Prefix)
	set(params, "after", options.After)
	set(params, "bucket", options.Bucket)
	return callAs[KeyPage](ctx, c, "kv.keys", params)
}

// Keys tells all keys that have a value, sorted.
func (c *Client) Keys(ctx context.Context, options KeysOptions) ([]string, error) {
	var all []string
	for {
		page, err := c.ListKeys(ctx, options)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Keys...)
		if page.Next == nil {
			return all, nil
		}
		options.After = *page.Next
	}
}

// HistoryOptions of a look at the past.
type HistoryOptions struct {
	Bucket string
}

// History tells what the bucket has kept of a key, oldest first.
func (c *Client) History(ctx context.Context, key string, options HistoryOptions) ([]Entry, error) {
	params := map[string]any{"key": key}
	set(params, "bucket", options.Bucket)
	found, err := callAs[struct {
		Entries []Entry `json:"entries"`
	}](ctx, c, "kv.history", params)
	return found.Entries, err
}

// WatchOptions say what to follow: one Key, or all with a Prefix; all keys unless told.
type WatchOptions struct {
	Key    string
	Prefix string
	// FromRevision: first the writes since then that the store still has; see [Subscription.ResumeRevision].
	FromRevision uint64
	// UpdatesOnly: nothing of what is there at the beginning.
	UpdatesOnly bool
	Bucket      string
}

// Watch follows values: events put, delete, purge, expire, sync, gap, end. After a gap that is followed by end, or any other end,
// watch again with [Subscription.ResumeRevision] as FromRevision and no write is missed, but those that the store has forgotten.
func (c *Client) Watch(ctx context.Context, options WatchOptions) (*Subscription, error) {
	params := map[string]any{}
	set(params, "key", options.Key)
	if options.Key == "" || options.Prefix != "" {
		params["prefix"] = options.Prefix
	}
	set(params, "from_revision", options.FromRevision)
	set(params, "updates_only", options.UpdatesOnly)
	set(params, "bucket", options.Bucket)
	return c.subscribe(ctx, "kv.watch", params, options.FromRevision)
}

// set adds a parameter that is not at its zero value.
func set[T comparable](params map[string]any, name string, value T) {
	var zero T
	if value != zero {
		params[name] = value
	}
}

func setWait(params map[string]any, wait time.Duration) {
	switch {
	case wait < 0:
		params["wait_ms"] = 0
	case wait > 0:
		params["wait_ms"] = toMillis(wait)
	}
}

// with adds a value, if there is one.
func with(params map[string]any, value []byte) map[string]any {
	wire := toWire(value)
	if wire.Value != nil {
		params["value"] = *wire.Value
	}
	if wire.ValueB64 != nil {
		params["value_b64"] = *wire.ValueB64
	}
	return params
}

// text has no value be an empty one.
func text(value []byte) []byte {
	if value == nil {
		return []byte{}
	}
	return value
}

// toMillis rounds up, so that little is not nothing.
func toMillis(d time.Duration) int64 {
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}

func millis(ms int64) time.Duration { return time.Duration(ms) * time.Millisecond }

func isCancelled(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
