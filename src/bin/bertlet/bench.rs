//! `bertlet bench`: how fast the model runs here, and how much of the machine that is.

use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use bertlet::format::{Encoding, SectionKind};
use bertlet::kernels::take_times;
use bertlet::{Executor, Input, Layers, Output, Pooling, Session};
use lexopt::Parser;

use crate::Command;
use crate::failure::{Failure, zeros};
use crate::json::Object;
use crate::options::{Options, Takes, text_value};
use crate::output::{self, Answers};

pub const COMMAND: Command = Command {
    name: "bench",
    about: "measures the speed at several lengths, against the machine's peak",
    help: &["\
Usage: bertlet bench MODEL [--lengths 8,16,..] [--threads N] [--isa NAME] [--profile] [--json] [--read]
       bertlet bench MODEL --protocol

Runs inputs of each length for about two seconds, one at a time, and tells the median and the shortest
time. Between them it measures how many multiply-adds the CPU can do in registers (in int8, or f32 for
float models); the fraction of that peak is counted over the encoder's linear layers and attention, and
is the median of what inputs reach of the peaks measured right before and after them.

      --lengths LIST   lengths in tokens (8,16,32,64,128,256,512, as far as the model takes them)
      --threads N      threads (1)
      --isa NAME       instruction set (the fastest that the CPU has; also BERTLET_ISA)
      --profile        tells instead what share of an input's time each kernel takes
      --json           one JSON object per line, also on a terminal
      --protocol       reads lines from stdin and answers each at once: `L REPS` with REPS times in
                       microseconds for an input of L tokens; `L REPS BATCH` with those of BATCH such inputs;
                       `Q IDS OUT` with `ok`, when the last hidden states of the ids in each line of the
                       file IDS stand in OUT as little-endian f32. THREADS in the environment sets threads

Example:
  bertlet bench model.bertlet --lengths 16,128
"],
    run,
};

/// How long a length is measured.
const TIME: Duration = Duration::from_millis(2200);
/// How long the peak is measured at a time: as long as one input takes, so that a machine with
/// other work to do interrupts both alike, within these limits.
const PEAK_TIME: (Duration, Duration) = (Duration::from_micros(400), Duration::from_millis(50));
/// How long inputs run between two measurements of the peak.
const BURST: Duration = Duration::from_millis(2);

fn run(parser: Parser) -> Result<(), Failure> {
    let mut lengths = None;
    let (mut protocol, mut profile) = (false, false);
    let mut options = Options::parse(parser, Takes::Model, &mut |name, parser| {
        match name {
            "--lengths" => lengths = Some(read_lengths(&text_value(parser, name)?)?),
            "--protocol" => protocol = true,
            "--profile" => profile = true,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    if protocol && let Ok(threads) = std::env::var("THREADS") {
        options.threads =
            threads.parse().ok().filter(|threads| *threads > 0).ok_or_else(|| {
                Failure::usage(format!("THREADS={threads}: give a number from 1"))
            })?;
    }
    let file = options.open()?;
    if profile {
        options.isa = options.isa.clocked().expect("the first to ask for clocks");
    }
    let bench = Bench::new(options.session(&file)?)?;
    match (protocol, profile) {
        (true, true) => Err(Failure::usage("--protocol and --profile: give one of them")),
        (true, _) => bench.protocol(&options.model),
        (_, true) => bench.profile(&options, lengths),
        _ => bench.table(&options, lengths),
    }
}

fn read_lengths(list: &str) -> Result<Vec<usize>, Failure> {
    let numbers = list.split(',').map(|length| length.trim().parse().ok().filter(|n| *n > 0));
    numbers.collect::<Option<_>>().ok_or_else(|| {
        Failure::usage(format!("--lengths {list:?}: give numbers, as in --lengths 16,128"))
    })
}

/// A model at work.
struct Bench<'m> {
    session: Session<'m>,
    ids: Vec<u32>,
    pooled: Vec<f32>,
    /// Encodes int8 weights.
    int8: bool,
}

impl<'m> Bench<'m> {
    fn new(session: Session<'m>) -> Result<Self, Failure> {
        let model = session.model();
        let config = model.config();
        // Any ids do; these touch rows all over the table, as texts do.
        let ids = (0..config.max_position_embeddings as u64)
            .map(|i| ((i + 1) * 2_654_435_761 % config.vocab_size as u64) as u32)
            .collect();
        let int8 = model
            .sections()
            .any(|s| s.kind == SectionKind::QueryKeyValue && s.encoding == Encoding::Int8);
        Ok(Self { ids, pooled: zeros(config.hidden_size)?, int8, session })
    }

    /// Encodes `tokens` tokens once.
    fn encode(&mut self, tokens: usize) -> Result<(), Failure> {
        let input = self.ids.get(..tokens).ok_or_else(|| {
            Failure::usage(format!(
                "{tokens} tokens: the model takes {} at most; choose a shorter length",
                self.ids.len()
            ))
        })?;
        let features = Output::Features {
            layers: Layers::LAST,
            pooling: Pooling::Mean,
            normalize: false,
            out: &mut self.pooled,
        };
        self.session
            .encode(&Input::new(input), &mut [features])
            .map_err(|error| Failure::work("bench", error))
    }

    /// The lengths asked for, or the usual ones that the model takes.
    fn lengths(&self, asked: Option<Vec<usize>>) -> Vec<usize> {
        asked.unwrap_or_else(|| {
            let usual = [8, 16, 32, 64, 128, 256, 512].into_iter();
            usual.filter(|length| *length <= self.ids.len()).collect()
        })
    }

    /// What share of the time each kernel takes, for each length.
    fn profile(mut self, options: &Options, lengths: Option<Vec<usize>>) -> Result<(), Failure> {
        let threads = self.session.executor().threads() as f64;
        let mut answers = Answers::open(options)?;
        for tokens in self.lengths(lengths) {
            self.encode(tokens)?;
            take_times().for_each(drop);
            let (begin, mut runs) = (Instant::now(), 0.0);
            while begin.elapsed() < TIME || runs < 5.0 {
                self.encode(tokens)?;
                runs += 1.0;
            }
            let total = begin.elapsed().as_secs_f64() * 1e6 * threads / runs;
            let mut stages: Vec<_> = take_times()
                .map(|(kernel, time)| (kernel, time.as_secs_f64() * 1e6 / runs))
                .filter(|(_, time)| *time > 0.0)
                .collect();
            stages.sort_by(|a, b| b.1.total_cmp(&a.1));
            let clocked: f64 = stages.iter().map(|(_, time)| time).sum();
            stages.push(("between", total - clocked));
            if answers.json {
                let mut object = Object::new(answers.line());
                object.plain("tokens", tokens).plain("total_us", format_args!("{total:.3}"));
                for (stage, time) in stages {
                    object.plain(&format!("{stage}_us"), format_args!("{time:.3}"));
                }
                object.end();
            } else {
                write!(answers.line(), "{tokens} tokens: {total:.1} us")
                    .expect("memory takes everything");
                for (stage, time) in stages {
                    answers.end(true)?;
                    let percent = 100.0 * time / total;
                    write!(answers.line(), "  {stage:12} {time:12.1} us {percent:6.1} %")
                        .expect("memory takes everything");
                }
            }
            answers.end(true)?;
        }
        answers.finish()
    }

    fn table(mut self, options: &Options, lengths: Option<Vec<usize>>) -> Result<(), Failure> {
        let lengths = self.lengths(lengths);
        let mut answers = Answers::open(options)?;
        if !answers.json {
            let kind = if self.int8 { "int8" } else { "f32" };
            write!(
                answers.line(),
                "{}, {} thread(s); peak of {kind} multiply-adds in registers\n\
                 tokens    median us       min us     GMAC/s       peak   of peak",
                self.session.isa().name(),
                self.session.executor().threads(),
            )
            .expect("memory takes everything");
            answers.end(true)?;
        }
        for tokens in lengths {
            let row = self.measure(tokens)?;
            if answers.json {
                self.write_json(&row, answers.line());
            } else {
                row.write_plain(answers.line());
            }
            answers.end(true)?;
        }
        answers.finish()
    }

    /// Inputs of one length and the peak, turn by turn, so that whatever else the machine does
    /// slows both: the fraction is the median of what each burst of inputs reaches of the peaks before
    /// and after it.
    fn measure(&mut self, tokens: usize) -> Result<Row, Failure> {
        let multiply_adds = self.session.model().config().multiply_adds(tokens) as f64;
        let (mut times, mut peaks, mut fractions) = (Vec::new(), Vec::new(), Vec::new());
        self.encode(tokens)?;
        let begin = Instant::now();
        self.encode(tokens)?;
        let rounds = self.peak_rounds(begin.elapsed().clamp(PEAK_TIME.0, PEAK_TIME.1));
        let start = Instant::now();
        let mut before = self.peak(rounds);
        while times.len() < 5 || start.elapsed() < TIME {
            let burst = Instant::now();
            let first = times.len();
            while burst.elapsed() < BURST {
                let begin = Instant::now();
                self.encode(tokens)?;
                times.push(begin.elapsed().as_secs_f64() * 1e6);
            }
            let after = self.peak(rounds);
            let speed = multiply_adds / median(&mut times[first..]) / 1e3;
            fractions.push(speed / ((before + after) / 2.0));
            peaks.push(after);
            before = after;
            // One input may take seconds, on an old machine with a large model.
            if start.elapsed() > 2 * TIME {
                break;
            }
        }
        let time = median(&mut times);
        Ok(Row {
            tokens,
            median: time,
            min: times[0],
            speed: multiply_adds / time / 1e3,
            peak: median(&mut peaks),
            fraction: median(&mut fractions),
        })
    }

    /// Rounds of the peak that take about so long.
    fn peak_rounds(&self, wanted: Duration) -> usize {
        let mut rounds = 1000;
        loop {
            let start = Instant::now();
            self.run_peak(rounds);
            let time = start.elapsed();
            if time > PEAK_TIME.0 / 4 || rounds > 1 << 30 {
                return (rounds as f64 * wanted.as_secs_f64() / time.as_secs_f64()) as usize + 1;
            }
            rounds *= 2;
        }
    }

    /// Multiply-adds in registers, in 10^9 a second, on all threads.
    fn peak(&self, rounds: usize) -> f64 {
        let start = Instant::now();
        let multiply_adds = self.run_peak(rounds);
        multiply_adds as f64 / start.elapsed().as_secs_f64() / 1e9
    }

    fn run_peak(&self, rounds: usize) -> u64 {
        let kernels = self.session.isa().kernels();
        let run = || if self.int8 { kernels.peak_int8(rounds) } else { kernels.peak_f32(rounds) };
        let executor = self.session.executor();
        on_threads(executor, executor.threads(), &run)
    }

    fn write_json(&self, row: &Row, line: &mut Vec<u8>) {
        let mut object = Object::new(line);
        object
            .plain("tokens", row.tokens)
            .plain("median_us", format_args!("{:.3}", row.median))
            .plain("min_us", format_args!("{:.3}", row.min))
            .plain("gmac_per_s", format_args!("{:.3}", row.speed))
            .plain("peak_gmac_per_s", format_args!("{:.3}", row.peak))
            .plain("peak_fraction", format_args!("{:.4}", row.fraction))
            .string("isa", self.session.isa().name())
            .plain("threads", self.session.executor().threads());
        object.end();
    }

    /// Answers one line after another, each at once. Between reading a line and answering it,
    /// nothing is allocated but what a longer input needs.
    fn protocol(mut self, model: &Path) -> Result<(), Failure> {
        let mut out = BufWriter::new(io::stdout());
        let mut line = String::new();
        let mut input = io::stdin().lock();
        loop {
            line.clear();
            match input.read_line(&mut line) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) => return Err(Failure::work("stdin", error)),
            }
            let written = match parse(&line)? {
                Request::Nothing => continue,
                Request::Times { tokens, repetitions, batch } => {
                    self.times(&mut out, tokens, repetitions, batch)?
                }
                Request::States { ids, states } => {
                    self.states(model, Path::new(ids), Path::new(states))?;
                    out.write_all(b"ok\n")
                }
            };
            written.and_then(|()| out.flush()).map_err(|error| Failure::write("stdout", &error))?;
        }
    }

    fn times(
        &mut self,
        out: &mut impl Write,
        tokens: usize,
        repetitions: usize,
        batch: usize,
    ) -> Result<io::Result<()>, Failure> {
        for i in 0..repetitions {
            let begin = Instant::now();
            for _ in 0..batch {
                self.encode(tokens)?;
            }
            let time = begin.elapsed().as_secs_f64() * 1e6;
            let space = if i == 0 { "" } else { " " };
            if let Err(error) = write!(out, "{space}{time:.3}") {
                return Ok(Err(error));
            }
        }
        Ok(out.write_all(b"\n"))
    }

    /// Writes the last hidden states of each line of ids.
    fn states(&mut self, model: &Path, ids: &Path, states: &Path) -> Result<(), Failure> {
        let file = std::fs::File::open(ids).map_err(|error| Failure::work(ids.display(), error))?;
        [model, ids].into_iter().try_for_each(|read| output::differ(states, read))?;
        let mut out = BufWriter::new(output::create(states)?);
        let hidden = self.session.model().config().hidden_size;
        for (i, line) in BufReader::new(file).lines().enumerate() {
            let place = format!("{}: line {}", ids.display(), i + 1);
            let line = line.map_err(|error| Failure::work(&place, error))?;
            let numbers = line.split_whitespace().map(|id| id.parse::<u32>().ok());
            let ids: Vec<u32> = numbers.collect::<Option<_>>().ok_or_else(|| {
                Failure::work(&place, "not a list of ids; write numbers with spaces between them")
            })?;
            let mut values = zeros(ids.len() * hidden)?;
            let features = Output::Features {
                layers: Layers::LAST,
                pooling: Pooling::None,
                normalize: false,
                out: &mut values,
            };
            self.session.encode(&Input::new(&ids), &mut [features]).map_err(|error| {
                Failure::work(&place, format_args!("{}: {error}", model.display()))
            })?;
            values
                .iter()
                .try_for_each(|value| out.write_all(&value.to_le_bytes()))
                .map_err(|error| Failure::write(states.display(), &error))?;
        }
        out.flush().map_err(|error| Failure::write(states.display(), &error))?;
        let (out, _) = out.into_parts();
        out.finish().map_err(|error| Failure::write(states.display(), &error))
    }
}

/// Runs `work` on this many threads at once, and adds what it returns.
fn on_threads(executor: &dyn Executor, threads: usize, work: &(dyn Fn() -> u64 + Sync)) -> u64 {
    if threads <= 1 {
        return work();
    }
    let (mut a, mut b) = (0, 0);
    let half = threads / 2;
    executor.join(&mut || a = on_threads(executor, half, work), &mut || {
        b = on_threads(executor, threads - half, work)
    });
    a + b
}

/// The middle one; sorts them.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What was measured at one length; times in microseconds, speeds in 10^9 multiply-adds a second.
struct Row {
    tokens: usize,
    median: f64,
    min: f64,
    speed: f64,
    peak: f64,
    fraction: f64,
}

impl Row {
    fn write_plain(&self, line: &mut Vec<u8>) {
        let Self { tokens, median, min, speed, peak, fraction } = *self;
        let percent = 100.0 * fraction;
        write!(
            line,
            "{tokens:6} {median:12.1} {min:12.1} {speed:10.1} {peak:10.1} {percent:7.1} %"
        )
        .expect("memory takes everything");
    }
}

/// A line of the protocol.
enum Request<'l> {
    Nothing,
    Times { tokens: usize, repetitions: usize, batch: usize },
    States { ids: &'l str, states: &'l str },
}

fn parse(line: &str) -> Result<Request<'_>, Failure> {
    let mut words = line.split_whitespace();
    let Some(first) = words.next() else { return Ok(Request::Nothing) };
    let (second, third) = (words.next(), words.next());
    if first == "Q"
        && let (Some(ids), Some(states)) = (second, third)
    {
        return Ok(Request::States { ids, states });
    }
    let number = |word: &str| word.parse::<usize>().ok().filter(|n| *n > 0);
    let times = || {
        Some(Request::Times {
            tokens: number(first)?,
            repetitions: number(second?)?,
            batch: number(third.unwrap_or("1"))?,
        })
    };
    times().ok_or_else(|| {
        Failure::work(
            "stdin",
            format_args!("{:?}: write `L REPS`, `L REPS BATCH` or `Q IDS OUT`", line.trim()),
        )
    })
}
