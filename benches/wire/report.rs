//! From samples to what is claimed: ratios of the same round, their median and range, and whether they are good enough.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};

use crate::alone::Figure;
use crate::ledger::Faults;
use crate::rounds::Series;
use crate::sample::{Latency, Sample, median};
use crate::stage::{Contender, Cpu};

/// Whose samples: the load, the contender, its processes.
type Whose = (&'static str, Contender, usize);

/// What is claimed of a ratio.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The higher the better.
    AtLeast(f64),
    /// The lower the better.
    AtMost(f64),
}

impl Target {
    fn met(self, figure: f64) -> bool {
        match self {
            Self::AtLeast(bound) => figure >= bound,
            Self::AtMost(bound) => figure <= bound,
        }
    }

    fn words(self) -> String {
        match self {
            Self::AtLeast(bound) => format!(">= {bound}"),
            Self::AtMost(bound) => format!("<= {bound}"),
        }
    }
}

/// What is compared.
struct Claim {
    what: &'static str,
    of: Whose,
    to: Whose,
    metric: fn(&Sample) -> f64,
    target: Target,
}

fn rate(sample: &Sample) -> f64 {
    sample.turns_per_second
}

fn p50(sample: &Sample) -> f64 {
    sample.latency.map_or(f64::NAN, |latency| latency.p50)
}

fn p99(sample: &Sample) -> f64 {
    sample.latency.map_or(f64::NAN, |latency| latency.p99)
}

fn claims() -> Vec<Claim> {
    use Contender::{BareLoop, Worker};
    use Target::{AtLeast, AtMost};
    let claim = |what, load, metric, target| Claim {
        what,
        of: (load, Worker, 1),
        to: (load, BareLoop, 1),
        metric,
        target,
    };
    vec![
        claim("closed loop, turns/s", "closed", rate, AtLeast(0.85)),
        claim("closed loop, p99", "closed", p99, AtMost(1.3)),
        Claim {
            of: ("closed", Worker, 2),
            to: ("closed", Worker, 1),
            ..claim("two workers to one, turns/s", "closed", rate, AtLeast(1.0))
        },
        Claim {
            of: ("closed", Worker, 2),
            to: ("closed", BareLoop, 2),
            ..claim("two of each, turns/s", "closed", rate, AtLeast(0.85))
        },
        claim("open loop, p50", "open", p50, AtMost(1.25)),
        claim("open loop, p99", "open", p99, AtMost(1.25)),
        claim("backlog, turns/s", "backlog", rate, AtLeast(0.85)),
    ]
}

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What is compared.
    pub what: &'static str,
    /// The median of what it is compared to, and of it.
    pub reference: f64,
    /// See [`Row::reference`].
    pub figure: f64,
    /// The ratios of the rounds: median, least, greatest. None if any reply was lost, doubled or wrong.
    pub ratio: Option<[f64; 3]>,
    /// What was wrong.
    pub faults: Faults,
    /// What is claimed.
    pub target: Target,
    /// Whether the median says so.
    pub met: bool,
}

/// The rows for which there are samples.
pub fn rows(series: &[Series]) -> Vec<Row> {
    let find = |(load, contender, processes): Whose| {
        series.iter().find(|series| {
            series.load == load && series.contender == contender && series.processes == processes
        })
    };
    let row = |claim: Claim| Some(compare(&claim, find(claim.of)?, find(claim.to)?));
    claims().into_iter().filter_map(row).collect()
}

fn compare(claim: &Claim, of: &Series, to: &Series) -> Row {
    let both = || of.samples.iter().chain(&to.samples);
    let faults = both().fold(Faults::default(), |all, sample| all.and(sample.faults));
    let figures =
        |series: &Series| -> Vec<f64> { series.samples.iter().map(claim.metric).collect() };
    let (of, to) = (figures(of), figures(to));
    let ratios: Vec<f64> = of.iter().zip(&to).map(|(of, to)| of / to).collect();
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let middle = median(ratios);
    Row {
        what: claim.what,
        reference: median(to),
        figure: median(of),
        ratio: faults.none().then_some([middle, least, greatest]),
        met: faults.none() && claim.target.met(middle),
        target: claim.target,
        faults,
    }
}

/// Prints the table. False if something went wrong that forbids a ratio.
pub fn print(rows: &[Row], alone: &[Figure]) -> bool {
    println!(
        "\n{:<30} {:>10} {:>10} {:>22} {:>10}",
        "", "bare loop", "worker", "ratio (range)", "target"
    );
    for row in rows {
        let ratio = row
            .ratio
            .map_or("none".to_owned(), |[middle, least, greatest]| {
                format!("{middle:.2} ({least:.2} to {greatest:.2})")
            });
        println!(
            "{:<30} {:>10} {:>10} {ratio:>22} {:>10} {}",
            row.what,
            figure(row.reference),
            figure(row.figure),
            row.target.words(),
            if row.met { "met" } else { "missed" }
        );
        if row.ratio.is_none() {
            println!("   no ratio: {:?}", row.faults);
        }
    }
    for Figure {
        what,
        unit,
        values,
        at_most,
    } in alone
    {
        let value = median(values.iter().copied());
        let met = if value <= *at_most { "met" } else { "missed" };
        println!(
            "{what:<52} {} {unit}, at most {at_most}: {met}",
            figure(value)
        );
    }
    println!(
        "\nTurns a second; latencies in milliseconds. \"Two workers to one\" has one worker in place of the bare loop."
    );
    rows.iter().all(|row| row.ratio.is_some())
}

/// Prints the medians that the ratios are of, and what a turn took of each processor.
pub fn print_medians(series: &[Series]) {
    println!(
        "\n{:<24} {:>9} {:>8} {:>8} {:>8} {:>8} | {:>7} {:>7} {:>7} {:>7}",
        "medians", "turns/s", "p50", "p99", "p99.9", "max", "itself", "NATS", "Redis", "load"
    );
    for series in series {
        let of =
            |metric: &dyn Fn(&Sample) -> f64| figure(median(series.samples.iter().map(metric)));
        let latency = |of_it: fn(&Latency) -> f64| {
            of(&|sample: &Sample| sample.latency.as_ref().map_or(f64::NAN, of_it))
        };
        let cpu = |of_it: fn(&Cpu) -> f64| of(&|sample: &Sample| of_it(&sample.cpu));
        println!(
            "{:<24} {:>9} {:>8} {:>8} {:>8} {:>8} | {:>7} {:>7} {:>7} {:>7}",
            format!(
                "{}, {:?} x{}",
                series.load, series.contender, series.processes
            ),
            of(&rate),
            latency(|latency| latency.p50),
            latency(|latency| latency.p99),
            latency(|latency| latency.p999),
            latency(|latency| latency.max),
            cpu(|cpu| cpu.contender),
            cpu(|cpu| cpu.nats),
            cpu(|cpu| cpu.redis),
            cpu(|cpu| cpu.load),
        );
    }
    println!("Latencies in milliseconds, processor time in microseconds a turn.");
}

/// A figure to three digits.
pub fn figure(value: f64) -> String {
    match value {
        large if large >= 100.0 => format!("{large:.0}"),
        middle if middle >= 10.0 => format!("{middle:.1}"),
        small => format!("{small:.2}"),
    }
}

/// Everything, for programs.
pub fn json(series: &[Series], rows: &[Row], alone: &[Figure]) -> Value {
    json!({ "machine": machine(), "series": series, "rows": rows, "alone": alone })
}

/// What the figures depend on.
pub fn machine() -> Value {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    json!({
        "cores": cores,
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
        "worker": env!("CARGO_PKG_VERSION"),
    })
}

/// Writes files into all these folders.
pub fn save(folders: &[PathBuf], name: &str, json: &Value, svg: &str) -> std::io::Result<()> {
    for folder in folders {
        std::fs::create_dir_all(folder)?;
        let text = serde_json::to_string_pretty(json)?;
        let write = |end: &str, text: &str| {
            let file: PathBuf = Path::new(folder).join(format!("{name}.{end}"));
            std::fs::write(&file, text)?;
            eprintln!("   {}", file.display());
            std::io::Result::Ok(())
        };
        write("json", &text)?;
        write("svg", svg)?;
    }
    Ok(())
}
