//! Which hidden states are wanted, and how they are combined.

use std::fmt;
use std::str::FromStr;

use crate::error::RunError;

/// How several hidden states of a token become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combine {
    /// Their sum. Lower layers are added first.
    Sum,
    /// Their sum, divided by their number.
    Mean,
    /// Concatenated in the order given.
    Concat,
    /// The sum of each times its weight. Lower layers are added first.
    Weighted,
}

/// Upper bound on the hidden states of a selection.
pub(super) const MAX_STATES: usize = 64;

/// A selection of hidden states, numbered as `hidden_states` in transformers: 0 is the output of the
/// embeddings, 1 that of the first layer, -1 that of the last layer.
///
/// | text | meaning |
/// |---|---|
/// | `embeddings`, `first`, `last`, `second-to-last`, `3`, `-2` | one hidden state |
/// | `sum:last4`, `mean:last4`, `concat:last4` | the last four, combined |
/// | `sum:all` | all layers, without the embeddings |
/// | `concat:3,-1`, `sum:1,2` | those listed, combined |
/// | `weighted:0=0.1,5=0.4` | a weighted sum |
///
/// ```
/// let layers: bertlet::Layers = "concat:last4".parse()?;
/// assert_eq!(layers.states(12).map(|state| state.index).collect::<Vec<_>>(), [9, 10, 11, 12]);
/// # Ok::<(), bertlet::SelectionError>(())
/// ```
#[derive(Clone, Copy, PartialEq)]
pub struct Layers {
    combine: Combine,
    /// Layer, as given, and weight.
    listed: [(i16, f32); MAX_STATES],
    count: usize,
    /// All layers of the model, in place of those listed.
    all: bool,
}

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.combine)?;
        if self.all {
            f.write_str(" of all")
        } else {
            f.debug_list().entries(self.listed()).finish()
        }
    }
}

impl Layers {
    /// The output of the last layer.
    pub const LAST: Self = Self::one(-1);

    /// One hidden state; negative numbers count from the last.
    pub const fn one(layer: i16) -> Self {
        let mut listed = [(0, 1.0); MAX_STATES];
        listed[0].0 = layer;
        Self { combine: Combine::Concat, listed, count: 1, all: false }
    }

    /// Several hidden states, each with its weight, combined.
    ///
    /// # Errors
    /// [`SelectionError::Count`].
    pub fn several(combine: Combine, layers: &[(i16, f32)]) -> Result<Self, SelectionError> {
        if layers.is_empty() || layers.len() > MAX_STATES {
            return Err(SelectionError::Count);
        }
        let mut listed = [(0, 1.0); MAX_STATES];
        listed[..layers.len()].copy_from_slice(layers);
        Ok(Self { combine, listed, count: layers.len(), all: false })
    }

    fn listed(&self) -> &[(i16, f32)] {
        &self.listed[..self.count]
    }

    /// How the hidden states are combined.
    pub const fn combine(&self) -> Combine {
        self.combine
    }

    /// How many hidden states of a model with `num_hidden_layers` layers are combined.
    pub(super) const fn count(&self, num_hidden_layers: usize) -> usize {
        if self.all { num_hidden_layers } else { self.count }
    }

    /// The hidden states of a model with `num_hidden_layers` layers, in the order given. States that
    /// the model does not have are left out; see [`Layers::check`].
    pub fn states(&self, num_hidden_layers: usize) -> impl Iterator<Item = HiddenState> {
        (0..self.count(num_hidden_layers)).filter_map(move |i| {
            let (layer, weight) = if self.all { (i as i16 + 1, 1.0) } else { self.listed[i] };
            Some(HiddenState { index: state_index(layer, num_hidden_layers)?, weight })
        })
    }

    /// Checks that a model with `num_hidden_layers` layers has all of them.
    ///
    /// # Errors
    /// [`RunError::NoSuchLayer`]: with a layer that the model does not have, or with 64 for `all` of a
    /// model with more layers than can be combined.
    pub fn check(&self, num_hidden_layers: usize) -> Result<(), RunError> {
        let layer = if self.all {
            (num_hidden_layers > MAX_STATES).then_some(MAX_STATES as i16)
        } else {
            let mut layers = self.listed().iter().map(|(layer, _)| *layer);
            layers.find(|layer| state_index(*layer, num_hidden_layers).is_none())
        };
        match layer {
            Some(layer) => Err(RunError::NoSuchLayer { layer, layers: num_hidden_layers }),
            None => Ok(()),
        }
    }
}

/// Index of hidden state `layer`, where negative ones count from the last layer.
fn state_index(layer: i16, num_hidden_layers: usize) -> Option<usize> {
    let states = num_hidden_layers as i64 + 1;
    let index = i64::from(layer) + if layer < 0 { states } else { 0 };
    (0..states).contains(&index).then_some(index as usize)
}

/// One hidden state of a [`Layers`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HiddenState {
    /// 0 for the embeddings' output, 1 for that of the first layer, and so on.
    pub index: usize,
    /// Factor in [`Combine::Weighted`]; 1 elsewhere.
    pub weight: f32,
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
            return Ok(Self { combine, listed: [(0, 1.0); MAX_STATES], count: 0, all: true });
        }
        let mut listed = [(0, 1.0); MAX_STATES];
        let mut count = 0;
        let mut push = |layer| {
            *listed.get_mut(count).ok_or(SelectionError::Count)? = layer;
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
        Self::several(combine, &listed[..count])
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

/// Why a text does not name layers or a pooling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SelectionError {
    /// Unknown name of a pooling.
    Pooling,
    /// Unknown name of a combination.
    Combination,
    /// Not the number or the name of a layer.
    Layer,
    /// A weight is missing, malformed, or given where none belongs.
    Weight,
    /// More than 64 layers, or none.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn states(text: &str, layers: usize) -> Vec<usize> {
        let selection = text.parse::<Layers>().unwrap();
        selection.check(layers).unwrap();
        selection.states(layers).map(|state| state.index).collect()
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
        let weighted = "weighted:0=0.1,5=0.4".parse::<Layers>().unwrap();
        assert_eq!(weighted.states(6).nth(1), Some(HiddenState { index: 5, weight: 0.4 }));
    }

    #[test]
    fn invalid_selections_are_refused() {
        for text in ["", "7x", "sum", "sum:", "median:1", "weighted:1", "sum:1=2", "concat:last0"] {
            assert!(text.parse::<Layers>().is_err(), "{text}");
        }
        let check = |text: &str, layers| text.parse::<Layers>().unwrap().check(layers).unwrap_err();
        assert_eq!(check("7", 6), RunError::NoSuchLayer { layer: 7, layers: 6 });
        assert_eq!(check("concat:last4", 2), RunError::NoSuchLayer { layer: -4, layers: 2 });
        assert_eq!(check("sum:all", 65), RunError::NoSuchLayer { layer: 64, layers: 65 });
        assert!("average".parse::<crate::Pooling>().is_err());
    }
}
