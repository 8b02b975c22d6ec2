//! Units: tokens, or words, that get one label each.

use std::ops::Range;

use super::entities::Aggregation;
use super::rows::{CONTINUES_WORD, SPECIAL, TokenTable};
use super::tags::{LabelSet, TagPosition};
use super::viterbi;
use crate::heads::{argmax, softmax};

/// Memory for units, of as many elements as there are tokens.
#[derive(Default)]
pub(super) struct UnitSpace<'s> {
    pub first: &'s mut [u32],
    pub last: &'s mut [u32],
    pub label: &'s mut [u32],
    /// `[tokens][labels + 1]` and `[2][labels + 1]`: for [`viterbi::decode`].
    pub back: &'s mut [u32],
    pub row: &'s mut [f32],
}

/// The units of a text, each with a label.
pub(super) struct Units<'s> {
    /// `[units][labels]`: probabilities.
    probabilities: &'s [f32],
    /// `[units]`: rows of the first and the last token.
    first: &'s [u32],
    last: &'s [u32],
    /// `[units]`: index of the label; the number of labels stands for an `O` that the model lacks.
    label: &'s [u32],
    labels: usize,
}

impl<'s> Units<'s> {
    /// Joins tokens to units and chooses the label of each, by the rules of `gather_pre_entities` and
    /// `aggregate_words` in transformers. Overwrites the logits.
    pub fn new(
        tokens: &TokenTable<'_>,
        logits: &'s mut [f32],
        space: UnitSpace<'s>,
        labels: &LabelSet<'_, '_>,
        (aggregation, constrained): (Aggregation, bool),
    ) -> Self {
        let UnitSpace { first, last, label, back, row } = space;
        let count = labels.len();
        let units = join(tokens, logits, (first, last), aggregation, count);
        let (probabilities, label) = (&logits[..units * count], &mut label[..units]);
        if constrained {
            viterbi::decode(labels, probabilities, back, row, label);
        } else {
            for (label, row) in label.iter_mut().zip(probabilities.chunks_exact(count.max(1))) {
                *label = argmax(row).unwrap_or(count) as u32;
            }
        }
        let (first, last) = (&first[..units], &last[..units]);
        Self { probabilities, first, last, label, labels: count }
    }

    pub fn len(&self) -> usize {
        self.label.len()
    }

    /// Row of a unit's first token.
    pub fn first(&self, unit: usize) -> usize {
        self.first[unit] as usize
    }

    /// Row of a unit's last token.
    pub fn last(&self, unit: usize) -> usize {
        self.last[unit] as usize
    }

    /// Index of a unit's label.
    pub fn label(&self, unit: usize) -> usize {
        self.label[unit] as usize
    }

    /// The probability of a unit's label.
    pub fn score(&self, unit: usize) -> f32 {
        self.probabilities[unit * self.labels + self.label(unit)]
    }

    /// The entities as ranges of units (`group_entities` in transformers); with `single` every unit is
    /// one of its own.
    pub fn groups(
        &self,
        labels: &LabelSet<'_, '_>,
        single: bool,
        mut each: impl FnMut(Range<usize>),
    ) {
        let mut start = 0;
        for unit in 1..=self.len() {
            let splits = unit == self.len() || single || {
                // Nothing is joined across a special token.
                self.last(unit - 1) + 1 != self.first(unit)
                    || labels.splits([self.label(unit - 1), self.label(unit)])
            };
            if splits {
                let label = labels.get(self.label(start));
                if label.is_some_and(|label| label.position != TagPosition::Outside) {
                    each(start..unit);
                }
                start = unit;
            }
        }
    }
}

/// Turns `[tokens][labels]` logits into `[units][labels]` probabilities, in place, and notes the first
/// and the last token of each unit. Returns the number of units.
fn join(
    tokens: &TokenTable<'_>,
    values: &mut [f32],
    (first, last): (&mut [u32], &mut [u32]),
    aggregation: Aggregation,
    labels: usize,
) -> usize {
    let of_words = !matches!(aggregation, Aggregation::None | Aggregation::Simple);
    let mut units = 0;
    // Tokens of the current unit.
    let mut count = 0;
    for i in (0..tokens.kinds.len()).filter(|i| tokens.kinds[*i] != SPECIAL) {
        let row = i * labels..(i + 1) * labels;
        softmax(&mut values[row.clone()]);
        let follows = units > 0 && last[units - 1] as usize + 1 == i;
        if !(of_words && follows && tokens.kinds[i] == CONTINUES_WORD) {
            values.copy_within(row, units * labels);
            first[units] = i as u32;
            units += 1;
            count = 0;
        } else {
            let (unit, token) = values.split_at_mut(i * labels);
            let (unit, token) = (&mut unit[(units - 1) * labels..][..labels], &token[..labels]);
            match aggregation {
                Aggregation::Average => {
                    // A running mean would round differently: sum now, divide below.
                    unit.iter_mut().zip(token).for_each(|(unit, token)| *unit += token);
                }
                Aggregation::Max if largest(token) > largest(unit) => unit.copy_from_slice(token),
                _ => {}
            }
        }
        last[units - 1] = i as u32;
        count += 1;
        let ends = tokens.kinds.get(i + 1).is_none_or(|kind| *kind != CONTINUES_WORD);
        if aggregation == Aggregation::Average && ends && count > 1 {
            let unit = &mut values[(units - 1) * labels..][..labels];
            unit.iter_mut().for_each(|x| *x /= count as f32);
        }
    }
    units
}

fn largest(x: &[f32]) -> f32 {
    argmax(x).map_or(f32::NAN, |i| x[i])
}
