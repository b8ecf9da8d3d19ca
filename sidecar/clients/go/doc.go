// Package tenure speaks to the daemon tenured: locks, leader election, membership and fenced values.
//
// A connection is a session. What is acquired through a [Client] is released when it is closed or the process dies, and a
// client does not connect again by itself: what was held is lost, and only the application knows what that means.
//
//	client, err := tenure.Connect(ctx, tenure.Options{})
//	if err != nil {
//		return err
//	}
//	defer client.Close()
//	return client.WithLock(ctx, "nightly", tenure.LockOptions{}, func(ctx context.Context, lock *tenure.Lock) error {
//		_, err := client.Put(ctx, "report", []byte("done"), tenure.PutOptions{FencedBy: lock})
//		return err // ctx is cancelled when the lock is lost
//	})
//
// Every method that waits takes a context. When it is done the request is cancelled at the daemon, too, and a lease that was
// granted in the same moment is given back; a write that is cancelled may have been done.
package tenure
