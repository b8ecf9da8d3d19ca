package tenure.client;

import static org.junit.jupiter.api.Assertions.fail;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;

/** A {@code tenured} for tests: started, settled, and killed when closed. */
final class Daemon implements AutoCloseable {
    /** {@code sidecar/clients}. */
    static final Path CLIENTS = Path.of("").toAbsolutePath().getParent();
    /** Longer than anything here takes on a busy machine. */
    static final Duration PATIENCE = Duration.ofSeconds(30);

    final Path socket;
    private final Path directory;
    private final Process process;

    Daemon(List<String> flags) throws Exception {
        directory = Files.createTempDirectory("tenure-java-");
        socket = directory.resolve("s.sock");
        var command = new ArrayList<>(List.of(
            tenured(), "--store", "memory:", "--lease", "30s", "--log", "error", "--socket", socket.toString()));
        command.addAll(flags);
        var builder = new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.INHERIT);
        builder.environment().keySet().removeIf(name -> name.startsWith("TENURE"));
        process = builder.start();
        try {
            until("tenured listens", this::settled);
        } catch (Exception | AssertionError failed) {
            close();
            throw failed;
        }
    }

    private boolean settled() throws InterruptedException {
        try (Client client = connect()) {
            // A new bucket grants nothing for one lease. On a busy machine so short a one may be lost meanwhile.
            Lock lock = client.lock("settle", LockOptions.DEFAULTS.lease(Duration.ofMillis(500)));
            try {
                lock.release();
            } catch (LostException notNeededAnyMore) {
                return true;
            }
            return true;
        } catch (UnavailableException notYet) {
            if (!process.isAlive()) {
                throw notYet;
            }
            return false;
        }
    }

    private static String tenured() {
        String named = System.getenv("TENURED");
        Path found = named != null ? Path.of(named) : CLIENTS.resolve("../../target/debug/tenured").normalize();
        if (!Files.isExecutable(found)) {
            fail("there is no " + found + "; build it with `cargo build -p tenure-sidecar`, or name it in $TENURED");
        }
        return found.toString();
    }

    Client connect() throws InterruptedException {
        return Client.builder().socket(socket).connect();
    }

    static void until(String what, Callable<Boolean> check) throws Exception {
        long deadline = System.nanoTime() + PATIENCE.toNanos();
        while (!check.call()) {
            if (System.nanoTime() > deadline) {
                fail("waited in vain: " + what);
            }
            Thread.sleep(2);
        }
    }

    void signal(String name) throws Exception {
        new ProcessBuilder("kill", "-" + name.toUpperCase(), String.valueOf(process.pid())).inheritIO().start().waitFor();
        if (name.equals("stop")) {
            until("every thread stands still", this::standsStill);
        }
    }

    private boolean standsStill() throws IOException {
        try (var tasks = Files.list(Path.of("/proc", String.valueOf(process.pid()), "task"))) {
            for (Path task : tasks.toList()) {
                String stat = Files.readString(task.resolve("stat"));
                if (!stat.substring(stat.lastIndexOf(')')).startsWith(") T")) {
                    return false;
                }
            }
        }
        return true;
    }

    @Override
    public void close() throws IOException {
        process.destroyForcibly().onExit().join();
        try (var files = Files.list(directory)) {
            for (Path file : files.toList()) {
                Files.deleteIfExists(file);
            }
        }
        Files.deleteIfExists(directory);
    }
}
