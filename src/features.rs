//! Feature extraction: which hidden states, how combined, how pooled.

use std::fmt;
use std::str::FromStr;

/// How the token vectors of a sequence become one vector. Means and maxima run over all unmasked
/// tokens, the special ones included, as in sentence-transformers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
#[non_exhaustive]
pub enum Pooling {
    /// Not at all: a vector a token.
    #[default]
    None = 0,
    /// The first token's.
    Cls = 1,
    /// `tanh(W x + b)` of the first token's: the checkpoint's pooler (BERT, 1810.04805, section 3).
    Pooler = 2,
    /// Mean.
    Mean = 3,
    /// Largest value of each feature.
    Max = 4,
    /// Mean, then maximum: twice as wide.
    MeanMax = 5,
    /// Sum over the square root of the number of tokens.
    MeanSqrt = 6,
    /// The last unmasked token's.
    Sep = 7,
}

impl Pooling {
    /// All of them, by the names that the command line uses.
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

    /// The one with this number in a model file.
    pub const fn from_number(number: u32) -> Option<Self> {
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

/// How several hidden states become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combine {
    /// Added, lowest layer first.
    Sum,
    /// Added, then divided by their number.
    Mean,
    /// Side by side, in the order given.
    Concat,
    /// Added, each multiplied by its weight, lowest layer first.
    Weighted,
}

/// Hidden states that a selection names at most.
pub const MAX_PICKS: usize = 64;

/// A selection of hidden states, as in `hidden_states` of transformers: 0 is the embeddings' output,
/// 1 the first layer's, -1 the last layer's.
///
/// | text | meaning |
/// |---|---|
/// | `embeddings`, `first`, `last`, `second-to-last`, `3`, `-2` | one |
/// | `sum:last4`, `mean:last4`, `concat:last4` | the last four, combined |
/// | `sum:all` | all layers, without the embeddings |
/// | `concat:3,-1`, `sum:1,2` | a list |
/// | `weighted:0=0.1,5=0.4` | a weighted sum |
///
/// ```
/// let layers: bertlet::Layers = "concat:last4".parse()?;
/// assert_eq!(layers.width(768), 3072);
/// # Ok::<(), bertlet::SelectionError>(())
/// ```
#[derive(Clone, Copy, PartialEq)]
pub struct Layers {
    combine: Combine,
    picks: [(i16, f32); MAX_PICKS],
    count: usize,
    /// Every layer, however many there are.
    all: bool,
}

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.combine)?;
        if self.all { f.write_str(" of all") } else { f.debug_list().entries(self.raw()).finish() }
    }
}

/// Why a text is no selection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SelectionError {
    /// No such pooling.
    Pooling,
    /// No such combination of layers.
    Combination,
    /// Not a layer number.
    Layer,
    /// Not a weight, or no weight where one is needed.
    Weight,
    /// More than [`MAX_PICKS`] layers, or none.
    Count,
}

impl fmt::Display for SelectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pooling => {
                "no such pooling; try none, cls, pooler, mean, max, mean-max, mean-sqrt or sep"
            }
            Self::Combination => "no such combination; try sum:, mean:, concat: or weighted:",
            Self::Layer => {
                "no such layer; try embeddings, first, last, second-to-last, a number, last4 or all"
            }
            Self::Weight => "weights are written layer=number, as in weighted:0=0.1,5=0.4",
            Self::Count => "between 1 and 64 layers may be combined",
        })
    }
}

impl core::error::Error for SelectionError {}

impl Layers {
    /// The last layer.
    pub const LAST: Self = Self::one(-1);

    /// One hidden state.
    pub const fn one(layer: i16) -> Self {
        let mut picks = [(0, 1.0); MAX_PICKS];
        picks[0].0 = layer;
        Self { combine: Combine::Concat, picks, count: 1, all: false }
    }

    /// Several, combined.
    ///
    /// # Errors
    /// [`SelectionError::Count`].
    pub fn several(combine: Combine, layers: &[(i16, f32)]) -> Result<Self, SelectionError> {
        if layers.is_empty() || layers.len() > MAX_PICKS {
            return Err(SelectionError::Count);
        }
        let mut picks = [(0, 1.0); MAX_PICKS];
        picks[..layers.len()].copy_from_slice(layers);
        Ok(Self { combine, picks, count: layers.len(), all: false })
    }

    fn raw(&self) -> &[(i16, f32)] {
        &self.picks[..self.count]
    }

    /// Features of a token, for this hidden size (`concat:all` apart, whose width depends on the
    /// model: see [`Selection::width`]).
    pub const fn width(&self, hidden: usize) -> usize {
        match self.combine {
            Combine::Concat => self.count * hidden,
            _ => hidden,
        }
    }

    /// The selection for a model with so many layers.
    ///
    /// # Errors
    /// A layer that the model does not have, as it was given; [`MAX_PICKS`] where there are more layers
    /// than can be combined.
    pub fn resolve(&self, layers: usize) -> Result<Selection, i16> {
        let mut picks = [Pick { state: 0, weight: 1.0 }; MAX_PICKS];
        let count = if self.all { layers } else { self.count };
        if count > MAX_PICKS {
            return Err(MAX_PICKS as i16);
        }
        for (i, pick) in picks.iter_mut().enumerate().take(count) {
            let (layer, weight) = if self.all { (i as i16 + 1, 1.0) } else { self.picks[i] };
            let states = layers as i64 + 1;
            let state = i64::from(layer) + if layer < 0 { states } else { 0 };
            if !(0..states).contains(&state) {
                return Err(layer);
            }
            *pick = Pick { state: state as usize, weight };
        }
        Ok(Selection { combine: self.combine, picks, count })
    }
}

/// One hidden state of a [`Selection`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pick {
    /// 0 for the embeddings' output, 1 for the first layer's, and so on.
    pub state: usize,
    /// Its weight.
    pub weight: f32,
}

/// A [`Layers`] for a model of a known number of layers.
#[derive(Clone, Copy)]
pub struct Selection {
    /// How the states are combined.
    pub combine: Combine,
    picks: [Pick; MAX_PICKS],
    count: usize,
}

impl Selection {
    /// The states, in the order given.
    pub fn picks(&self) -> &[Pick] {
        &self.picks[..self.count]
    }
    /// Features of a token.
    pub fn width(&self, hidden: usize) -> usize {
        match self.combine {
            Combine::Concat => self.count * hidden,
            _ => hidden,
        }
    }
    /// The highest state.
    pub fn highest(&self) -> usize {
        self.picks().iter().map(|p| p.state).max().unwrap_or(0)
    }
}

impl FromStr for Layers {
    type Err = SelectionError;
    fn from_str(text: &str) -> Result<Self, SelectionError> {
        let Some((combine, list)) = text.split_once(':') else {
            return Ok(Self::one(layer(text)?));
        };
        let combine = match combine {
            "sum" => Combine::Sum,
            "mean" => Combine::Mean,
            "concat" => Combine::Concat,
            "weighted" => Combine::Weighted,
            _ => return Err(SelectionError::Combination),
        };
        if list == "all" && combine != Combine::Weighted {
            return Ok(Self { combine, picks: [(0, 1.0); MAX_PICKS], count: 0, all: true });
        }
        let mut picks = [(0, 1.0); MAX_PICKS];
        let mut count = 0;
        let mut push = |pick| {
            *picks.get_mut(count).ok_or(SelectionError::Count)? = pick;
            count += 1;
            Ok::<_, SelectionError>(())
        };
        if let Some(n) = list.strip_prefix("last").and_then(|n| n.parse::<i16>().ok()) {
            for i in 0..n.max(0) {
                push((i - n, 1.0))?;
            }
        } else {
            for item in list.split(',') {
                match (combine, item.split_once('=')) {
                    (Combine::Weighted, Some((index, weight))) => {
                        let weight: f32 = weight.parse().map_err(|_| SelectionError::Weight)?;
                        if !weight.is_finite() {
                            return Err(SelectionError::Weight);
                        }
                        push((layer(index)?, weight))?;
                    }
                    (Combine::Weighted, None) | (_, Some(_)) => {
                        return Err(SelectionError::Weight);
                    }
                    (_, None) => push((layer(item)?, 1.0))?,
                }
            }
        }
        Self::several(combine, &picks[..count])
    }
}

fn layer(name: &str) -> Result<i16, SelectionError> {
    match name {
        "embeddings" => Ok(0),
        "first" => Ok(1),
        "last" => Ok(-1),
        "second-to-last" => Ok(-2),
        number => number.parse().map_err(|_| SelectionError::Layer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states(text: &str, layers: usize) -> Vec<usize> {
        let selection = text.parse::<Layers>().unwrap().resolve(layers).unwrap();
        selection.picks().iter().map(|p| p.state).collect()
    }

    #[test]
    fn selections_resolve_as_hidden_states() {
        assert_eq!(states("last", 6), [6]);
        assert_eq!(states("second-to-last", 6), [5]);
        assert_eq!(states("embeddings", 6), [0]);
        assert_eq!(states("-7", 6), [0]);
        assert_eq!(states("sum:last4", 6), [3, 4, 5, 6]);
        assert_eq!(states("concat:last4", 3), [0, 1, 2, 3]);
        assert_eq!(states("sum:all", 6), [1, 2, 3, 4, 5, 6]);
        assert_eq!(states("concat:3,-1", 6), [3, 6]);
        let weighted = "weighted:0=0.1,5=0.4".parse::<Layers>().unwrap().resolve(6).unwrap();
        assert_eq!(weighted.picks()[1], Pick { state: 5, weight: 0.4 });
    }

    #[test]
    fn what_is_no_selection_is_refused() {
        for text in ["", "7x", "sum", "sum:", "median:1", "weighted:1", "sum:1=2", "concat:last0"] {
            assert!(text.parse::<Layers>().is_err(), "{text}");
        }
        assert_eq!("7".parse::<Layers>().unwrap().resolve(6).err(), Some(7));
        assert_eq!("concat:last4".parse::<Layers>().unwrap().resolve(2).err(), Some(-4));
        assert!("average".parse::<Pooling>().is_err());
    }
}
