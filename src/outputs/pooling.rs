//! Features: hidden states, combined over layers and pooled over tokens.

use std::str::FromStr;

use super::{Combine, HiddenState, Layers, Pass, SelectionError, head};
use crate::error::RunError;
use crate::format::Config;
use crate::kernels::{F32x16, Write, flat, flat_mut, sqrt};
use crate::observer::HeadScratch;

/// How the vectors of an input's tokens become one vector. Means and maxima run over all unmasked
/// tokens, the special ones included, as in sentence-transformers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
#[non_exhaustive]
pub enum Pooling {
    /// Not at all: one vector per token.
    #[default]
    None = 0,
    /// The vector of the first token.
    Cls = 1,
    /// `tanh(W x + b)` of the first token: the checkpoint's pooler (BERT, 1810.04805, section 3).
    Pooler = 2,
    /// Mean over the tokens.
    Mean = 3,
    /// Maximum over the tokens, per feature.
    Max = 4,
    /// [`Pooling::Mean`] and [`Pooling::Max`] concatenated: twice as wide.
    MeanMax = 5,
    /// Sum over the square root of the number of tokens.
    MeanSqrt = 6,
    /// The vector of the last unmasked token.
    Sep = 7,
}

impl Pooling {
    /// All of them, in the order of their numbers, by their names on the command line.
    pub const NAMES: [(&'static str, Self); 8] = [
        ("none", Self::None),
        ("cls", Self::Cls),
        ("pooler", Self::Pooler),
        ("mean", Self::Mean),
        ("max", Self::Max),
        ("mean-max", Self::MeanMax),
        ("mean-sqrt", Self::MeanSqrt),
        ("sep", Self::Sep),
    ];

    /// The pooling with this number in a model file.
    pub(crate) const fn from_number(number: u32) -> Option<Self> {
        if number < Self::NAMES.len() as u32 { Some(Self::NAMES[number as usize].1) } else { None }
    }

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        Self::NAMES[self as usize].0
    }
}

impl FromStr for Pooling {
    type Err = SelectionError;
    /// ```
    /// assert_eq!("mean".parse(), Ok(bertlet::Pooling::Mean));
    /// ```
    fn from_str(name: &str) -> Result<Self, SelectionError> {
        let found = Self::NAMES.iter().find(|(n, _)| *n == name);
        found.map(|(_, pooling)| *pooling).ok_or(SelectionError::Pooling)
    }
}

/// Values of [`Output::Features`](crate::Output::Features): features per vector, times tokens if not
/// pooled.
///
/// # Errors
/// [`RunError::NoSuchLayer`].
pub fn features_len(
    config: &Config,
    tokens: usize,
    layers: &Layers,
    pooling: Pooling,
) -> Result<usize, RunError> {
    layers.check(config.num_hidden_layers)?;
    let width = width(config, layers);
    Ok(match pooling {
        Pooling::None => tokens.saturating_mul(width),
        Pooling::MeanMax => 2 * width,
        _ => width,
    })
}

/// Features of a token.
fn width(config: &Config, layers: &Layers) -> usize {
    match layers.combine() {
        Combine::Concat => layers.count(config.num_hidden_layers) * config.hidden_size,
        _ => config.hidden_size,
    }
}

/// Whether the states of each token have to be combined before a maximum can be taken.
pub(super) fn is_combined_maximum(layers: &Layers, pooling: Pooling) -> bool {
    matches!(pooling, Pooling::Max | Pooling::MeanMax) && layers.combine() != Combine::Concat
}

/// A request for features.
pub(super) struct Features<'f> {
    pub(super) pass: &'f Pass<'f>,
    pub(super) layers: &'f Layers,
    pub(super) pooling: Pooling,
    pub(super) normalize: bool,
}

impl Features<'_> {
    fn states(&self) -> impl Iterator<Item = HiddenState> {
        self.layers.states(self.pass.config.num_hidden_layers)
    }

    /// Adds hidden state `index` to `out`, as often as it is selected, or to the sum per token if
    /// the maximum is to be taken of that.
    pub(super) fn add(&self, index: usize, x: &[F32x16], sum: &mut [F32x16], out: &mut [f32]) {
        for (slot, state) in self.states().enumerate().filter(|(_, s)| s.index == index) {
            // Sums start with the lowest state, and of the same state with the first.
            let first = self.states().enumerate().all(|(i, s)| (s.index, i) >= (index, slot));
            let (start, write) = match self.layers.combine() {
                Combine::Concat => (slot * self.pass.config.hidden_size, Write::Set),
                _ => (0, if first { Write::Set } else { Write::Add }),
            };
            if is_combined_maximum(self.layers, self.pooling) {
                self.pass.kernels.accumulate(flat_mut(sum), flat(x), state.weight, write);
            } else {
                self.pool(x, state.weight, write, start, out);
            }
        }
    }

    /// Pools one hidden state into the features from `start` on.
    fn pool(&self, x: &[F32x16], weight: f32, write: Write, start: usize, out: &mut [f32]) {
        let (pass, hidden) = (self.pass, self.pass.config.hidden_size);
        let width = width(pass.config, self.layers);
        let add = |out: &mut [f32], x: &[f32]| {
            pass.kernels.accumulate(&mut out[start..][..hidden], x, weight, write);
        };
        match self.pooling {
            Pooling::None => {
                out.chunks_exact_mut(width).zip(pass.rows(x)).for_each(|(out, x)| add(out, x));
            }
            Pooling::Cls | Pooling::Pooler => pass.rows(x).take(1).for_each(|x| add(out, x)),
            Pooling::Sep => {
                let last = pass.unmasked_rows(x).last();
                last.into_iter().for_each(|x| add(out, x));
            }
            Pooling::Mean | Pooling::MeanSqrt => {
                sum_tokens(pass, x, weight, write, &mut out[start..][..hidden]);
            }
            Pooling::Max => maximum(pass.unmasked_rows(x), &mut out[start..][..hidden]),
            Pooling::MeanMax => {
                sum_tokens(pass, x, weight, write, &mut out[start..][..hidden]);
                maximum(pass.unmasked_rows(x), &mut out[width + start..][..hidden]);
            }
        }
    }

    /// What can only be done after the last layer: maxima of sums, divisions, the pooler, the length.
    pub(super) fn finish(&self, sum: &[F32x16], scratch: &mut HeadScratch<'_>, out: &mut [f32]) {
        let (pass, hidden) = (self.pass, self.pass.config.hidden_size);
        if is_combined_maximum(self.layers, self.pooling) {
            let (sums, maxima) = out.split_at_mut(out.len() - hidden);
            if !sums.is_empty() {
                sum_tokens(pass, sum, 1.0, Write::Set, sums);
            }
            maximum(pass.unmasked_rows(sum), maxima);
        }
        if self.layers.combine() == Combine::Mean {
            divide(out, self.layers.count(pass.config.num_hidden_layers) as f32);
        }
        let tokens = pass.unmasked_tokens() as f32;
        match self.pooling {
            Pooling::Mean => divide(out, tokens),
            Pooling::MeanSqrt => divide(out, sqrt(tokens)),
            Pooling::MeanMax => {
                let half = out.len() / 2;
                divide(&mut out[..half], tokens);
            }
            Pooling::Pooler => {
                for x in out.chunks_exact_mut(hidden) {
                    let row = flat_mut(scratch.row);
                    row.fill(0.0);
                    row[..hidden].copy_from_slice(x);
                    head::pool(pass, scratch);
                    x.copy_from_slice(&flat(scratch.row)[..hidden]);
                }
            }
            _ => {}
        }
        if self.normalize {
            let vectors = if self.pooling == Pooling::None { pass.tokens } else { 1 };
            out.chunks_exact_mut(out.len() / vectors).for_each(l2_normalize);
        }
    }
}

/// Sets `out` to, or adds to it, the weighted sum over the unmasked tokens, in order.
fn sum_tokens(pass: &Pass<'_>, x: &[F32x16], weight: f32, write: Write, out: &mut [f32]) {
    for (i, x) in pass.unmasked_rows(x).enumerate() {
        pass.kernels.accumulate(out, x, weight, if i == 0 { write } else { Write::Add });
    }
}

fn maximum<'r>(rows: impl Iterator<Item = &'r [f32]>, out: &mut [f32]) {
    out.fill(f32::MIN);
    for row in rows {
        for (out, x) in out.iter_mut().zip(row) {
            *out = if *x > *out { *x } else { *out };
        }
    }
}

fn divide(x: &mut [f32], divisor: f32) {
    x.iter_mut().for_each(|x| *x /= divisor);
}

/// Divides a vector by its Euclidean length, or by 1e-12 if that is larger.
pub(crate) fn l2_normalize(x: &mut [f32]) {
    let length = sqrt(x.iter().map(|x| x * x).sum());
    divide(x, if length > 1e-12 { length } else { 1e-12 });
}
