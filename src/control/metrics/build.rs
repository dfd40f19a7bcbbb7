//! Makes metrics and registers them. Histograms whose classes are counted elsewhere are taken over whole.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{self, MetricFamily, MetricType};
use prometheus::{
    Error, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::base::Spread;

/// Registers what it makes.
pub(super) struct Builder<'a> {
    registry: &'a Registry,
    node_id: &'a str,
    /// What was registered.
    described: RefCell<Vec<Described>>,
}

/// What a metric is, for the page that lists them.
#[derive(Clone, Debug)]
pub(super) struct Described {
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) labels: Vec<String>,
    pub(super) help: String,
}

impl<'a> Builder<'a> {
    pub(super) fn new(registry: &'a Registry, node_id: &'a str) -> Self {
        Self { registry, node_id, described: RefCell::default() }
    }

    /// Names of LiveKit carry its constant labels, or its dashboards would not find them.
    fn opts(&self, name: &str, help: &str) -> Opts {
        let opts = Opts::new(name, help);
        if name.starts_with("livekit_") {
            opts.const_label("node_id", self.node_id).const_label("node_type", "SERVER")
        } else {
            opts
        }
    }

    fn register<T: Collector + Clone + 'static>(&self, metric: T) -> Result<T, Error> {
        self.registry.register(Box::new(metric.clone()))?;
        self.described.borrow_mut().extend(describe(&metric));
        Ok(metric)
    }

    /// All that was made, by name.
    pub(super) fn described(self) -> Vec<Described> {
        let mut all = self.described.into_inner();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> Result<IntCounter, Error> {
        self.register(IntCounter::with_opts(self.opts(name, help))?)
    }

    pub(super) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, Error> {
        self.register(IntCounterVec::new(self.opts(name, help), labels)?)
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, Error> {
        self.register(IntGauge::with_opts(self.opts(name, help))?)
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, Error> {
        self.register(IntGaugeVec::new(self.opts(name, help), labels)?)
    }

    /// Of fractions.
    pub(super) fn ratio(&self, name: &str, help: &str) -> Result<Gauge, Error> {
        self.register(Gauge::with_opts(self.opts(name, help))?)
    }

    /// Of fractions.
    pub(super) fn ratios(&self, name: &str, help: &str, label: &str) -> Result<GaugeVec, Error> {
        self.register(GaugeVec::new(self.opts(name, help), &[label])?)
    }

    /// One that observes by itself.
    pub(super) fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram, Error> {
        let common_opts = self.opts(name, help);
        self.register(Histogram::with_opts(HistogramOpts { common_opts, buckets: buckets.to_vec() })?)
    }

    /// One that is counted by media threads. `unit`: how many of its unit a second has.
    pub(super) fn taken(&self, name: &str, help: &str, bounds_us: &[u64], unit: f64) -> Result<Taken, Error> {
        let opts = self.opts(name, help);
        let desc = Desc::new(name.to_owned(), help.to_owned(), Vec::new(), opts.const_labels)?;
        let bounds = bounds_us.iter().map(|us| seconds(*us, 1e6) * unit).collect();
        let classes = (0..=bounds_us.len()).map(|_| AtomicU64::new(0)).collect();
        self.register(Taken(Arc::new(Inner { desc, bounds, classes, nanos: AtomicU64::new(0), unit })))
    }
}

/// A histogram whose classes come from elsewhere.
#[derive(Clone, Debug)]
pub(super) struct Taken(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    desc: Desc,
    bounds: Vec<f64>,
    /// One more than bounds.
    classes: Vec<AtomicU64>,
    nanos: AtomicU64,
    unit: f64,
}

impl Taken {
    /// Add what is new. Classes beyond those of this histogram count as its last.
    pub(super) fn add(&self, new: (&[u64], u64), old: (&[u64], u64)) {
        for (at, count) in new.0.iter().enumerate() {
            let more = count.saturating_sub(old.0.get(at).copied().unwrap_or_default());
            if let Some(class) = self.0.classes.get(at).or_else(|| self.0.classes.last()) {
                class.fetch_add(more, Ordering::Relaxed);
            }
        }
        self.0.nanos.fetch_add(new.1.saturating_sub(old.1), Ordering::Relaxed);
    }

    /// The same of two spreads.
    pub(super) fn add_spread(&self, new: &Spread, old: &Spread) {
        self.add((new.classes(), new.sum_nanos()), (old.classes(), old.sum_nanos()));
    }
}

impl Collector for Taken {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let inner = &self.0;
        let mut count = 0;
        let mut buckets = Vec::new();
        for (at, class) in inner.classes.iter().enumerate() {
            count += class.load(Ordering::Relaxed);
            if let Some(bound) = inner.bounds.get(at) {
                let mut bucket = proto::Bucket::default();
                bucket.set_cumulative_count(count);
                bucket.set_upper_bound(*bound);
                buckets.push(bucket);
            }
        }
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(count);
        histogram.set_sample_sum(seconds(inner.nanos.load(Ordering::Relaxed), 1e9) * inner.unit);
        let mut metric = proto::Metric::from_label(inner.desc.const_label_pairs.clone());
        metric.set_histogram(histogram);
        vec![family(&inner.desc, MetricType::HISTOGRAM, metric)]
    }
}

/// What a collector collects.
pub(super) fn describe(metric: &impl Collector) -> Vec<Described> {
    let families = metric.collect();
    let kind_of = |name: &str| match families.iter().find(|family| family.name() == name)?.get_field_type() {
        MetricType::COUNTER => Some("counter"),
        MetricType::GAUGE => Some("gauge"),
        MetricType::HISTOGRAM => Some("histogram"),
        MetricType::SUMMARY | MetricType::UNTYPED => None,
    };
    let described = |desc: &Desc| Described {
        name: desc.fq_name.clone(),
        kind: kind_of(&desc.fq_name).unwrap_or_default(),
        labels: desc
            .const_label_pairs
            .iter()
            .map(|pair| pair.name().to_owned())
            .chain(desc.variable_labels.clone())
            .collect(),
        help: desc.help.clone(),
    };
    metric.desc().into_iter().map(described).collect()
}

/// A family of one metric.
pub(super) fn family(desc: &Desc, kind: MetricType, metric: proto::Metric) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(desc.fq_name.clone());
    family.set_help(desc.help.clone());
    family.set_field_type(kind);
    family.set_metric(vec![metric]);
    family
}

/// Parts of a second in seconds. Whole numbers of this size lose nothing that matters here.
#[expect(clippy::cast_precision_loss, reason = "a metric is a float")]
fn seconds(parts: u64, per_second: f64) -> f64 {
    parts as f64 / per_second
}
