package tenure.client;

/** Interrupts the thread that works under a lease when that is lost, and not once the work is over. */
final class Guard {
    private final Thread worker = Thread.currentThread();
    private boolean over;
    private boolean interrupted;

    private synchronized void lost() {
        if (!over) {
            interrupted = true;
            worker.interrupt();
        }
    }

    private synchronized boolean end() {
        over = true;
        return interrupted;
    }

    /** Runs {@code work} on this thread and releases the lease afterwards. */
    static <L extends Lease, T> T run(L lease, Work<L, T> work) throws Exception {
        var guard = new Guard();
        lease.whenLost(guard::lost);
        T result;
        try {
            result = work.under(lease);
        } catch (Exception | Error problem) {
            boolean ours = guard.end();
            if (ours) {
                Thread.interrupted();
            }
            // What the work failed with matters more, unless that was only the interrupt.
            if (ours && problem instanceof InterruptedException) {
                lease.throwIfLost();
            }
            try {
                lease.close();
            } catch (TenureException unreleased) {
                problem.addSuppressed(unreleased);
            }
            throw problem;
        }
        if (guard.end()) {
            Thread.interrupted();
        }
        lease.close();
        return result;
    }
}
