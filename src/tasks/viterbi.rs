//! The likeliest sequence of labels that the scheme allows (Viterbi, 1967).

use super::tags::{LabelSet, Scheme};
use crate::heads::ln;

/// Log-probability of `O` if the model has no `O`: less than that of any label, so that it is chosen only
/// where no other sequence is legal.
pub(crate) const OUTSIDE_COST: f32 = -1e4;

/// Writes into `path` the legal sequence whose probabilities have the largest product; of equal ones
/// the first in the order of labels.
///
/// Labels that may be of IOB1 or of IOB2 are read both ways, and the likelier sequence counts. In IOB1 an
/// inside may follow any entity; in the other reading ([`Scheme::Bio`]) it may begin one after `O`, too, so
/// that a model's slip does not cost an entity, but not directly after an entity of another name.
///
/// `probabilities` is `[units][labels]`, `back` `[units][labels + 1]`, `row` `[2][labels + 1]`, `path`
/// `[units]`. `labels.len()` in `path` means `O` if there is no such label: with it, some sequence is always
/// legal.
pub(crate) fn decode(
    labels: &LabelSet<'_, '_>,
    probabilities: &[f32],
    back: &mut [u32],
    row: &mut [f32],
    path: &mut [u32],
) {
    if labels.scheme() != Scheme::Bio {
        search(labels, probabilities, back, row, path);
        return;
    }
    let iob1 = labels.read_as(Scheme::Iob1);
    let other = search(&iob1, probabilities, back, row, path);
    if search(labels, probabilities, back, row, path) < other {
        search(&iob1, probabilities, back, row, path);
    }
}

/// [`decode`] in one reading; returns the logarithm of the product.
fn search(
    labels: &LabelSet<'_, '_>,
    probabilities: &[f32],
    back: &mut [u32],
    row: &mut [f32],
    path: &mut [u32],
) -> f32 {
    let count = labels.len();
    let states = count + 1;
    let (mut previous, mut current) = row.split_at_mut(states);
    let units = path.len();
    let cost = |unit: usize, state: usize| {
        if state < count { ln(probabilities[unit * count + state]) } else { OUTSIDE_COST }
    };
    for unit in 0..units {
        for next in 0..states {
            let mut best = (f32::NEG_INFINITY, 0);
            if unit == 0 {
                if labels.may_follow(None, next) {
                    best.0 = 0.0;
                }
            } else {
                for (state, score) in previous[..states].iter().enumerate() {
                    if *score > best.0 && labels.may_follow(Some(state), next) {
                        best = (*score, state);
                    }
                }
            }
            back[unit * states + next] = best.1 as u32;
            current[next] = best.0 + cost(unit, next);
        }
        std::mem::swap(&mut previous, &mut current);
    }
    let mut best = (f32::NEG_INFINITY, count);
    for (state, score) in previous[..states].iter().enumerate() {
        if *score > best.0 && labels.may_end(state) {
            best = (*score, state);
        }
    }
    let mut state = best.1;
    for unit in (0..units).rev() {
        path[unit] = state as u32;
        state = back[unit * states + state] as usize;
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::tags::{Label, LabelRules};
    use proptest::prelude::*;

    const SETS: &[&[&str]] = &[
        &["O", "B-A", "I-A", "B-B", "I-B"],
        &["B-A", "I-A", "O", "I-B"],
        &["O", "B-A", "I-A", "E-A", "S-A"],
        &["B-A", "M-A", "E-A", "S-A", "O"],
        // No way out, or no way in.
        &["B-A", "E-A"],
        &["B-A", "I-A", "E-A", "B-B"],
        &["O", "O", "B-A", "B-A", "E-A", "I-C"],
        &["X", "Y"],
        &["O"],
    ];

    /// Every sequence, tried: the best score and the number of legal sequences.
    fn brute_force(set: &LabelSet<'_, '_>, p: &[f32], units: usize) -> f32 {
        let states = set.len() + 1;
        let mut best = f32::NEG_INFINITY;
        for code in 0..states.pow(units as u32) {
            let path: Vec<usize> =
                (0..units).map(|u| code / states.pow(u as u32) % states).collect();
            if legal(set, &path) {
                best = best.max(score(set, p, &path));
            }
        }
        best
    }

    /// In one of the readings.
    fn legal(set: &LabelSet<'_, '_>, path: &[usize]) -> bool {
        let readings = [*set, set.read_as(Scheme::Iob1)];
        let count = if set.scheme() == Scheme::Bio { 2 } else { 1 };
        readings[..count].iter().any(|set| legal_as(set, path))
    }

    fn legal_as(set: &LabelSet<'_, '_>, path: &[usize]) -> bool {
        (0..path.len()).all(|u| set.may_follow(u.checked_sub(1).map(|u| path[u]), path[u]))
            && path.last().is_none_or(|last| set.may_end(*last))
    }

    fn score(set: &LabelSet<'_, '_>, p: &[f32], path: &[usize]) -> f32 {
        let one = |(u, &l): (usize, &usize)| {
            if l < set.len() { ln(p[u * set.len() + l]) } else { OUTSIDE_COST }
        };
        path.iter().enumerate().map(one).fold(0.0, |a, b| a + b)
    }

    proptest! {
        #[test]
        fn equals_brute_force_and_is_legal(
            set in 0..SETS.len(),
            strict: bool,
            units in 0..5usize,
            logits in proptest::collection::vec(-9f32..9.0, 5 * 6),
        ) {
            let names = SETS[set];
            let mut buffer = vec![Label::default(); names.len()];
            let rules =
                LabelRules { scheme: strict.then_some(Scheme::Iob2), ..LabelRules::default() };
            let set = LabelSet::with_rules(names.iter().copied(), &mut buffer, &rules);
            let (count, states) = (set.len(), set.len() + 1);
            let mut p = logits[..units * count].to_vec();
            p.chunks_exact_mut(count).for_each(crate::heads::softmax);
            let (mut back, mut row) = (vec![0; units * states], vec![0.0; 2 * states]);
            let mut path = vec![0; units];
            decode(&set, &p, &mut back, &mut row, &mut path);
            let path: Vec<usize> = path.iter().map(|l| *l as usize).collect();
            prop_assert!(legal(&set, &path), "{:?} {:?}", set, path);
            if units > 0 {
                prop_assert_eq!(score(&set, &p, &path), brute_force(&set, &p, units));
            }
        }

        #[test]
        fn long_sequences_are_legal(
            set in 0..SETS.len(),
            logits in proptest::collection::vec(-30f32..30.0, 0..400),
        ) {
            let names = SETS[set];
            let mut buffer = vec![Label::default(); names.len()];
            let set = LabelSet::new(names.iter().copied(), &mut buffer);
            let (count, states) = (set.len(), set.len() + 1);
            let units = logits.len() / count;
            let mut p = logits[..units * count].to_vec();
            p.chunks_exact_mut(count).for_each(crate::heads::softmax);
            let (mut back, mut row) = (vec![0; units * states], vec![0.0; 2 * states]);
            let mut path = vec![0; units];
            decode(&set, &p, &mut back, &mut row, &mut path);
            let path: Vec<usize> = path.iter().map(|l| *l as usize).collect();
            prop_assert!(legal(&set, &path), "{:?} {:?}", set, path);
        }
    }

    /// The path for rows of probabilities, as names.
    fn names(
        labels: &[&'static str],
        scheme: Option<Scheme>,
        rows: &[&[f32]],
    ) -> Vec<&'static str> {
        let mut buffer = vec![Label::default(); labels.len()];
        let rules = LabelRules { scheme, ..LabelRules::default() };
        let set = LabelSet::with_rules(labels.iter().copied(), &mut buffer, &rules);
        let (p, states) = (rows.concat(), labels.len() + 1);
        let (mut back, mut row) = (vec![0; rows.len() * states], vec![0.0; 2 * states]);
        let mut path = vec![0; rows.len()];
        decode(&set, &p, &mut back, &mut row, &mut path);
        path.iter().map(|label| labels[*label as usize]).collect()
    }

    #[test]
    fn labels_of_iob1_keep_their_entities() {
        let labels = ["O", "B-A", "I-A", "B-B", "I-B"];
        let (o, ia) = (&[0.97, 0.01, 0.01, 0.0, 0.01][..], &[0.0, 0.01, 0.98, 0.0, 0.01][..]);
        let (ib, bb) = (&[0.01, 0.0, 0.01, 0.01, 0.97][..], &[0.0, 0.0, 0.0, 0.99, 0.01][..]);
        for scheme in [None, Some(Scheme::Iob1)] {
            assert_eq!(names(&labels, scheme, &[ia, o, ia]), ["I-A", "O", "I-A"]);
            // Directly after another entity, of another name and of its own.
            assert_eq!(names(&labels, scheme, &[o, ia, ib, bb]), ["O", "I-A", "I-B", "B-B"]);
        }
        assert_ne!(names(&labels, Some(Scheme::Iob2), &[ia, o, ia])[0], "I-A");
        // A slip of an IOB2 model stays an entity unless it contradicts its neighbour.
        let ba = &[0.0, 0.99, 0.01, 0.0, 0.0][..];
        assert_eq!(names(&labels, None, &[ba, o, ib]), ["B-A", "O", "I-B"]);
        let torn = &[0.1, 0.0, 0.4, 0.0, 0.5][..];
        assert_eq!(names(&labels, None, &[ba, torn]), ["B-A", "I-A"]);
    }
}
