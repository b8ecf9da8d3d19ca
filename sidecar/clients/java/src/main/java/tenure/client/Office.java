package tenure.client;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import java.util.concurrent.CompletableFuture;

/** A leadership that is held. */
public final class Office extends Lease {
    private final CompletableFuture<Candidate> asked = new CompletableFuture<>();

    Office(Client client, String name, Granted granted) {
        super(client, "leadership of", "election.resign", name, granted);
    }

    /** The term, which is the fencing token. */
    public long fence() {
        return granted().fence();
    }

    /** The id of the candidature that won. */
    public String candidate() {
        return granted().candidate();
    }

    /** Says something new to whoever asks who leads; returns the revision. */
    public long proclaim(byte[] value) throws InterruptedException {
        return client.revision("election.proclaim", Wire.Params.of("lease", handle()).withValue(value));
    }

    /** Says something new to whoever asks who leads; returns the revision. */
    public long proclaim(String value) throws InterruptedException {
        return proclaim(Client.utf8(value));
    }

    /** As {@link #release}. */
    public void resign() throws InterruptedException {
        release();
    }

    /** Hands the office to the candidate with that id; returns the new leader's term. */
    public long transfer(String candidate) throws InterruptedException {
        JsonElement moved = client.call("election.transfer", Wire.Params.of("lease", handle()).with("candidate", candidate).json);
        end();
        return ((JsonObject) moved).get("fence").getAsLong();
    }

    /** Completes when a candidate with a higher priority asks for the office, as {@link #lost} does. */
    public CompletableFuture<Candidate> asked() {
        return asked.copy();
    }

    void ask(JsonElement told) {
        Candidate candidate = Wire.read(told, Candidate.class);
        client.notices(() -> asked.complete(candidate));
    }
}
