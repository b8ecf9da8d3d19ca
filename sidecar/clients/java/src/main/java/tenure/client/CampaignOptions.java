package tenure.client;

import java.time.Duration;

/** How to campaign. What is null has its default. */
public record CampaignOptions(byte[] value, Duration waitFor, Duration lease, String label, Integer priority, Duration minTenure) {
    /** With every default. */
    public static final CampaignOptions DEFAULTS = new CampaignOptions(null, null, null, null, null, null);

    /** What to proclaim when elected. */
    public CampaignOptions value(byte[] value) {
        return new CampaignOptions(value, waitFor, lease, label, priority, minTenure);
    }

    /** How long to wait: for ever unless told, zero to try once. */
    public CampaignOptions waitFor(Duration waitFor) {
        return new CampaignOptions(value, waitFor, lease, label, priority, minTenure);
    }

    /** How long a crash of the daemon keeps it; the daemon's default unless told. */
    public CampaignOptions lease(Duration lease) {
        return new CampaignOptions(value, waitFor, lease, label, priority, minTenure);
    }

    /** Shown to whoever looks. */
    public CampaignOptions label(String label) {
        return new CampaignOptions(value, waitFor, lease, label, priority, minTenure);
    }

    /** A leader with a lower one is asked to step down. */
    public CampaignOptions priority(Integer priority) {
        return new CampaignOptions(value, waitFor, lease, label, priority, minTenure);
    }

    /** As leader, is not asked to step down before having led for so long. */
    public CampaignOptions minTenure(Duration minTenure) {
        return new CampaignOptions(value, waitFor, lease, label, priority, minTenure);
    }
}
