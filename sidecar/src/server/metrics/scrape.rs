//! The numbers as Prometheus reads them.

use std::{fmt, sync::Arc, sync::atomic::Ordering, time::SystemTime};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text, text},
    metrics::MetricType,
    registry::Registry,
};
use tenure::SessionState;

use super::{FAILURES, Histogram, NO_METHOD, Outcome, Trip, process::Process};
use crate::{
    protocol::Kind,
    server::{Daemon, held},
};

/// How numbers are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Format {
    Prometheus,
    OpenMetrics,
}

impl Format {
    pub(in crate::server) const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// All numbers of this moment.
pub(in crate::server) fn scrape(daemon: &Arc<Daemon>, format: Format) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape(daemon.clone())));
    let mut page = String::with_capacity(16 << 10);
    match format {
        Format::Prometheus => prometheus_text::encode(&mut page, &registry)?,
        Format::OpenMetrics => text::encode(&mut page, &registry)?,
    }
    Ok(page)
}

#[derive(Debug)]
struct Scrape(Arc<Daemon>);

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        self.holds(&mut page)?;
        self.sessions(&mut page)?;
        self.store(&mut page)?;
        self.clients(&mut page)?;
        self.http(&mut page)?;
        self.process(&mut page)
    }
}

impl Scrape {
    fn holds(&self, page: &mut Page<'_>) -> fmt::Result {
        let (leases, kinds) = (&self.0.leases, &self.0.metrics.kinds);
        let count = |count: &std::sync::atomic::AtomicUsize| count.load(Ordering::Relaxed);
        let (leaderships, members) = (count(&leases.leaderships), count(&leases.members));
        let locks = count(&leases.total).saturating_sub(leaderships + members);
        let held = held::Kind::ALL.map(held::Kind::as_str).into_iter().zip([locks, leaderships, members]);
        page.gauges("tenure_leases", "What clients of this daemon hold.", "kind", held)?;
        let kinds = || held::Kind::ALL.into_iter().map(held::Kind::as_str).zip(kinds);
        let waiting = kinds().map(|(kind, of)| (kind, of.waiting.load(Ordering::Relaxed)));
        page.gauges("tenure_waiting", "Requests that wait to hold something.", "kind", waiting)?;
        let waited = kinds().map(|(kind, of)| (kind, &of.waited));
        page.histograms("tenure_wait_seconds", "From a request to its grant.", "kind", waited)?;
        let handed_over = kinds().filter(|(kind, _)| *kind != held::Kind::Member.as_str());
        page.histograms(
            "tenure_handover_seconds",
            "From a release or the death of a holder, here, to the next grant to a request of this daemon that waited for it.",
            "kind",
            handed_over.map(|(kind, of)| (kind, &of.handed_over)),
        )?;
        page.counters("tenure_leases_lost", "Leases that clients were told are lost.", "reason", leases.tally.losses())
    }

    fn sessions(&self, page: &mut Page<'_>) -> fmt::Result {
        let sessions = self.0.sessions.opened();
        let states = ["held", "suspect", "restored", "lost"];
        let state = |session: &tenure::Session| match session.state() {
            SessionState::Held => "held",
            SessionState::Suspect => "suspect",
            SessionState::Restored => "restored",
            SessionState::Lost(_) => "lost",
        };
        let in_state = states.map(|wanted| (wanted, sessions.iter().filter(|session| state(session) == wanted).count()));
        page.gauges("tenure_sessions", "Sessions with the store, one for each length of lease in use.", "state", in_state)?;
        let renewals = self.0.sessions.renewals();
        page.counters(
            "tenure_renewals",
            "Renewals of sessions. One that is missed was not taken, or not answered in time.",
            "outcome",
            [("ok", renewals.acknowledged()), ("missed", renewals.missed())],
        )?;
        let living = sessions.iter().filter(|session| state(session) != "lost");
        let age = living.map(|session| session.renewed_ago().as_secs_f64()).fold(0.0, f64::max);
        page.gauge("tenure_renewal_age_seconds", "Since the last renewal, of the session where that is longest ago.", age)?;
        let left = sessions.iter().filter(|session| state(session) != "lost").map(|session| session.remaining().as_secs_f64());
        let left = left.reduce(f64::min).unwrap_or_else(|| self.0.sessions.default_lease().as_secs_f64());
        page.gauge("tenure_lease_remaining_seconds", "How long all leases stay valid without another renewal.", left)
    }

    fn store(&self, page: &mut Page<'_>) -> fmt::Result {
        let trips = self.0.measured.trips();
        page.histograms(
            "tenure_store_seconds",
            "Round trips to the store, and to buckets beside it.",
            "operation",
            Trip::ALL.map(Trip::as_str).into_iter().zip(&trips.took),
        )?;
        let failed = FAILURES.into_iter().zip(trips.failed.iter().map(|count| count.load(Ordering::Relaxed)));
        page.counters("tenure_store_errors", "Round trips to the store that failed. Conflicts are normal.", "kind", failed)?;
        page.counter("tenure_store_outages", "How often the store was out of touch.", self.0.measured.outages_seen())?;
        let looks = self.0.busy.as_ref().map_or(0, |busy| busy.looks());
        page.counter(
            "tenure_busy_polls",
            "How often the daemon looked again for the store's answer in place of going to sleep.",
            looks,
        )?;
        let age = self.0.measured.silent_for().as_secs_f64();
        page.gauge("tenure_store_answer_age_seconds", "Since the store answered last.", age)
    }

    fn clients(&self, page: &mut Page<'_>) -> fmt::Result {
        let (daemon, metrics) = (&self.0, &self.0.metrics);
        let connections = daemon.users.connections();
        page.gauge("tenure_connections", "Connections to the socket.", count(connections))?;
        page.gauge(
            "tenure_connections_max",
            "How many connections to the socket there may be, if each more is of another process.",
            count(daemon.connections_max()),
        )?;
        let accepted = [&metrics.accepted, &metrics.turned_away].map(|count| count.load(Ordering::Relaxed));
        page.counters(
            "tenure_connections_accepted",
            "Connections so far. Those that are turned away are too many.",
            "outcome",
            ["served", "turned_away"].into_iter().zip(accepted),
        )?;
        page.gauge("tenure_subscriptions", "Subscriptions.", count(daemon.subscriptions.load(Ordering::Relaxed)))?;
        let slow = metrics.slow_readers.load(Ordering::Relaxed);
        page.counter("tenure_slow_readers", "Subscriptions that ended because their clients did not read.", slow)?;
        page.gauge(
            "tenure_requests_in_flight",
            "Requests without an answer yet.",
            count(daemon.requests.load(Ordering::Relaxed)),
        )?;
        {
            let mut family = page.begin("tenure_requests", "Requests by method and outcome.", MetricType::Counter)?;
            // All of them would be many, and most of them never are.
            let told = metrics
                .requests()
                .filter(|(method, outcome, count)| *count > 0 || (*outcome == Outcome::Ok && *method != NO_METHOD));
            for (method, outcome, count) in told {
                let labels = [("method", method), ("outcome", outcome.as_str())];
                family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
        let refusals = Kind::ALL.map(|kind| {
            let of_kind = metrics.requests().filter(|(_, outcome, _)| *outcome == Outcome::Error(kind));
            (kind.as_str(), of_kind.map(|(_, _, count)| count).sum())
        });
        page.counters("tenure_refusals", "Requests that were answered with an error.", "kind", refusals)
    }

    fn http(&self, page: &mut Page<'_>) -> fmt::Result {
        let http = &self.0.metrics.http.0;
        page.gauge("tenure_http_connections", "Connections to the HTTP listener.", count(http.open.load(Ordering::Relaxed)))?;
        let codes = ["200", "400", "404", "405", "503", "other"];
        let answered = codes.into_iter().zip(http.answered.iter().map(|count| count.load(Ordering::Relaxed)));
        page.counters("tenure_http_responses", "Answers of the HTTP listener by status.", "code", answered)
    }

    fn process(&self, page: &mut Page<'_>) -> fmt::Result {
        let daemon = &self.0;
        {
            let mut family = page.begin("tenure_build", "What runs here.", MetricType::Info)?;
            family.encode_info(&[("version", env!("CARGO_PKG_VERSION"))])?;
        }
        page.gauge("tenure_uptime_seconds", "Since this daemon began.", daemon.started.elapsed().as_secs_f64())?;
        page.gauge("tenure_draining", "1 while the daemon leaves.", f64::from(u8::from(daemon.draining.is_cancelled())))?;
        let process = Process::look();
        if let Some(cpu) = process.cpu {
            let mut counter = page.begin("process_cpu_seconds", "Processor time used.", MetricType::Counter)?;
            counter.encode_counter::<NoLabelSet, _, u64>(&cpu.as_secs_f64(), None)?;
        }
        let gauges = [
            ("process_resident_memory_bytes", "Memory in use.", process.resident_bytes),
            ("process_open_fds", "Open files.", process.open_files),
            ("process_max_fds", "How many files may be open.", process.max_files),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                page.begin(name, help, MetricType::Gauge)?.encode_gauge(&value)?;
            }
        }
        let began = daemon.metrics.began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        page.gauge("process_start_time_seconds", "When the process began, as Unix time.", began.as_secs_f64())
    }
}

/// A count as a number with no sign and no end worth caring for.
#[allow(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn count(number: usize) -> f64 {
    number as f64
}

/// Where metrics are written, one family after the other.
#[derive(Debug)]
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn begin<'s>(&'s mut self, name: &'s str, help: &str, kind: MetricType) -> Result<MetricEncoder<'s>, fmt::Error> {
        // OpenMetrics ends a help text with a full stop of its own.
        self.0.encode_descriptor(name, help.trim_end_matches('.'), None, kind)
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.begin(name, help, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.begin(name, help, MetricType::Counter)?.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    fn gauges(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        all: impl IntoIterator<Item = (&'static str, usize)>,
    ) -> fmt::Result {
        let mut family = self.begin(name, help, MetricType::Gauge)?;
        for (value, number) in all {
            family.encode_family(&[(label, value)])?.encode_gauge(&number)?;
        }
        Ok(())
    }

    fn counters(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        all: impl IntoIterator<Item = (&'static str, u64)>,
    ) -> fmt::Result {
        let mut family = self.begin(name, help, MetricType::Counter)?;
        for (value, number) in all {
            family.encode_family(&[(label, value)])?.encode_counter::<NoLabelSet, _, u64>(&number, None)?;
        }
        Ok(())
    }

    fn histograms<'h>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        all: impl IntoIterator<Item = (&'static str, &'h Histogram)>,
    ) -> fmt::Result {
        let mut family = self.begin(name, help, MetricType::Histogram)?;
        for (value, histogram) in all {
            histogram.encode(family.encode_family(&[(label, value)])?)?;
        }
        Ok(())
    }
}
