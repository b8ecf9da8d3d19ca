import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.TreeSet;
import java.util.concurrent.FutureTask;
import tenure.client.CampaignOptions;
import tenure.client.Client;
import tenure.client.Event;
import tenure.client.JoinOptions;
import tenure.client.LockOptions;
import tenure.client.PutOptions;

/** One of the five: counts under the lock, leads once, and is in the group. run.py starts it; README.md says what it does. */
public final class Worker {
    private final Client client;
    private final String name;

    private Worker(Client client, String name) {
        this.client = client;
        this.name = name;
    }

    private static synchronized void say(String line) {
        System.out.println(line);
        System.out.flush();
    }

    private void awaitEverybody(int everybody) throws InterruptedException {
        var there = new TreeSet<String>();
        try (var events = client.watchMembers("fleet")) {
            for (Event event : events) {
                switch (event.kind()) {
                    case "join" -> there.add(event.member().id());
                    case "leave" -> there.remove(event.id());
                    case "end" -> throw new IllegalStateException("the group cannot be watched: " + event.reason());
                    default -> {
                    }
                }
                if (there.size() == everybody) {
                    say("{\"event\":\"members\",\"ids\":[\"" + String.join("\",\"", there) + "\"]}");
                    return;
                }
            }
        }
        throw new IllegalStateException("the group cannot be watched");
    }

    private void count(int rounds, Path counter) throws InterruptedException, IOException {
        for (int round = 0; round < rounds; round++) {
            try (var lock = client.lock("fleet.counter", LockOptions.DEFAULTS.label("java"))) {
                int value = Integer.parseInt(Files.readString(counter).strip()) + 1;
                client.put("fleet.count", String.valueOf(value), PutOptions.DEFAULTS.fencedBy(lock));
                Files.writeString(counter, String.valueOf(value));
                say("{\"event\":\"count\",\"value\":" + value + ",\"fence\":" + lock.fence() + "}");
            }
        }
    }

    private Void lead() throws InterruptedException {
        try (var office = client.campaign("fleet.leader", CampaignOptions.DEFAULTS.value(name.getBytes()))) {
            client.put("fleet.led-by", name, PutOptions.DEFAULTS.fencedBy(office));
            var leader = client.leader("fleet.leader").leader();
            if (leader == null || !leader.text().equals(name)) {
                throw new IllegalStateException("elected, and " + leader + " leads");
            }
            say("{\"event\":\"leader\",\"term\":" + office.fence() + "}");
            Thread.sleep(200);
        }
        return null;
    }

    public static void main(String[] args) throws Exception {
        try (Client client = Client.connect()) {
            var worker = new Worker(client, args[0]);
            try (var place = client.join("fleet", JoinOptions.DEFAULTS.id(args[0]).value("java".getBytes()))) {
                worker.awaitEverybody(Integer.parseInt(args[1]));
                var leading = new FutureTask<>(worker::lead);
                new Thread(leading, "leads").start();
                worker.count(Integer.parseInt(args[2]), Path.of(args[3]));
                leading.get();
                say("{\"event\":\"done\"}");
                // A member until the runner has seen all.
                System.in.readAllBytes();
                place.throwIfLost();
            }
        }
    }
}
