//! Tag schemes: what the labels of a token classifier say about entities.
//!
//! | scheme | begins | goes on | ends | a single token |
//! |---|---|---|---|---|
//! | BIO (IOB2, Ramshaw and Marcus, cmp-lg/9505040) | `B-` | `I-` | | |
//! | BIOES, BILOU (Ratinov and Roth, W09-1119) | `B-` | `I-` | `E-` or `L-` | `S-` or `U-` |
//! | BMES (Xue, O03-4002) | `B-` | `M-` | `E-` | `S-` |
//!
//! `O` marks tokens outside of entities. A label without a prefix of its scheme is the name of an entity.

use std::fmt;

use crate::format::Labels;

/// Names that outputs without a name get.
const NAMELESS: [[u8; 8]; 100] = {
    let mut names = [*b"LABEL_  "; 100];
    let mut i = 0;
    while i < names.len() {
        let digits = [b'0' + (i / 10) as u8, b'0' + (i % 10) as u8];
        (names[i][6], names[i][7]) =
            if i < 10 { (digits[1], b' ') } else { (digits[0], digits[1]) };
        i += 1;
    }
    names
};

/// The name of label `i`; `LABEL_3` where the file has none. From 100 on nameless labels are all
/// `LABEL_`: a converted file names every label.
pub fn label_name(names: Labels<'_>, i: usize) -> &str {
    names.get(i).unwrap_or_else(|| {
        let name = NAMELESS.get(i).map_or(&b"LABEL_"[..], |name| name);
        core::str::from_utf8(name).map_or("LABEL_", str::trim_ascii_end)
    })
}

/// How labels mark the borders of entities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scheme {
    /// Not at all: labels are names.
    Plain,
    /// Beginning, inside.
    Bio,
    /// Beginning, inside, end, single; BILOU, too.
    Bioes,
    /// Beginning, middle, end, single.
    Bmes,
}

/// The position of a token in an entity, as its label says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TagPosition {
    /// In no entity.
    #[default]
    Outside,
    /// First of an entity.
    Begin,
    /// Neither first nor, where the scheme marks it, last.
    Inside,
    /// Last of an entity.
    End,
    /// First and last.
    Single,
    /// In an entity; the label does not say where.
    Unmarked,
}

/// A label, split into its parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Label<'a> {
    /// The name in the checkpoint: `B-PER`.
    pub name: &'a str,
    /// The meaning of its prefix.
    pub position: TagPosition,
    /// The name without the prefix: `PER`.
    pub entity: &'a str,
    /// The first label that has the same `entity`.
    family: usize,
    /// Whether some label begins this entity.
    begins: bool,
}

/// Position and entity of a label; `None` if the scheme has no such prefix.
fn split(scheme: Scheme, name: &str) -> Option<(TagPosition, &str)> {
    let (prefix, entity) = name.split_once('-')?;
    let position = match (scheme, prefix) {
        (Scheme::Plain, _) => return None,
        (_, "B") => TagPosition::Begin,
        (Scheme::Bio | Scheme::Bioes, "I") | (Scheme::Bmes, "M") => TagPosition::Inside,
        // Some BMES corpora mark a middle that way.
        (Scheme::Bmes, "I") => TagPosition::Inside,
        (Scheme::Bioes | Scheme::Bmes, "E") | (Scheme::Bioes, "L") => TagPosition::End,
        (Scheme::Bioes | Scheme::Bmes, "S") | (Scheme::Bioes, "U") => TagPosition::Single,
        _ => return None,
    };
    Some((position, entity))
}

/// The labels of a model, split into their parts.
#[derive(Clone, Copy)]
pub struct LabelSet<'a, 'b> {
    labels: &'b [Label<'a>],
    scheme: Scheme,
}

impl fmt::Debug for LabelSet<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.labels.iter().map(|label| label.name);
        write!(f, "{:?} ", self.scheme)?;
        f.debug_list().entries(names).finish()
    }
}

impl<'a, 'b> LabelSet<'a, 'b> {
    /// Splits labels into `buffer`. Labels that do not fit are left out.
    ///
    /// The scheme is detected from the names: `X` and `Y` below stand for any entity. BMES has `B-X` and
    /// `M-X`, or `E-X` and `S-Y` but no `I-`; BIOES has `B-X` and `E-X` (`L-X`); BIO has some `B-X` or
    /// `I-X`. So a lonely `E-MAIL` does not make a scheme.
    ///
    /// ```
    /// use bertlet::tasks::{Label, LabelSet, Scheme};
    /// let mut buffer = [Label::default(); 3];
    /// let set = LabelSet::new(["O", "B-PER", "I-PER"], &mut buffer);
    /// assert_eq!(set.scheme(), Scheme::Bio);
    /// assert_eq!(set.get(2).unwrap().entity, "PER");
    /// ```
    pub fn new(names: impl IntoIterator<Item = &'a str>, buffer: &'b mut [Label<'a>]) -> Self {
        let mut count = 0;
        for (label, name) in buffer.iter_mut().zip(names) {
            *label = Label { name, ..Label::default() };
            count += 1;
        }
        let labels = &mut buffer[..count];
        let scheme = detect(labels);
        for label in labels.iter_mut() {
            (label.position, label.entity) = match label.name {
                "O" => (TagPosition::Outside, "O"),
                name => split(scheme, name).unwrap_or((TagPosition::Unmarked, name)),
            };
        }
        for i in 0..count {
            let of_family = |other: &Label<'_>| {
                other.entity == labels[i].entity
                    && (other.position == TagPosition::Outside)
                        == (labels[i].position == TagPosition::Outside)
            };
            let family = labels.iter().position(of_family).unwrap_or(i);
            let begins = labels.iter().any(|l| of_family(l) && l.position == TagPosition::Begin);
            (labels[i].family, labels[i].begins) = (family, begins);
        }
        Self { labels, scheme }
    }

    /// The scheme that was detected.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Number of labels.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Label `i`.
    pub fn get(&self, i: usize) -> Option<&Label<'a>> {
        self.labels.get(i)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &'b Label<'a>> + use<'a, 'b> {
        self.labels.iter()
    }

    /// Whether the scheme allows label `next` after `previous`, or at the start of the text
    /// (`None`). Labels that do not exist count as `O`.
    pub fn may_follow(&self, previous: Option<usize>, next: usize) -> bool {
        let previous = previous.and_then(|i| self.get(i)).filter(|p| self.is_open(p));
        let next = self.get(next).copied().unwrap_or_default();
        let same = previous.is_some_and(|p| p.family == next.family);
        match (self.scheme, next.position) {
            // In BIO an entity may end anywhere; one that nothing can begin starts with its inside.
            (Scheme::Plain | Scheme::Bio, TagPosition::Inside) => same || !next.begins,
            (Scheme::Plain | Scheme::Bio, _) => true,
            (_, TagPosition::Inside | TagPosition::End) => same,
            (_, _) => previous.is_none(),
        }
    }

    /// Whether the text may end with this label.
    pub fn may_end(&self, last: usize) -> bool {
        matches!(self.scheme, Scheme::Plain | Scheme::Bio)
            || self.get(last).is_none_or(|label| !self.is_open(label))
    }

    /// Whether an entity may or must continue after this label.
    fn is_open(&self, label: &Label<'_>) -> bool {
        matches!(label.position, TagPosition::Begin | TagPosition::Inside)
    }

    /// Whether the second of two neighbouring labels starts an entity of its own. Labels that do not
    /// exist count as `O`.
    ///
    /// For BIO this is the rule of transformers: another entity, or a `B-`.
    pub(super) fn splits(&self, labels: [usize; 2]) -> bool {
        let [Some(previous), Some(next)] = labels.map(|label| self.get(label)) else { return true };
        previous.family != next.family
            || matches!(next.position, TagPosition::Begin | TagPosition::Single)
            || matches!(previous.position, TagPosition::End | TagPosition::Single)
    }
}

fn detect(labels: &[Label<'_>]) -> Scheme {
    let with = |prefix: &'static str| {
        labels.iter().filter_map(move |label| label.name.strip_prefix(prefix))
    };
    let both = |a, b| with(a).any(|entity| with(b).any(|other| other == entity));
    let has = |prefix| with(prefix).next().is_some();
    if both("B-", "M-") || both("B-", "E-") && has("S-") && !has("I-") {
        Scheme::Bmes
    } else if both("B-", "E-") || both("B-", "L-") {
        Scheme::Bioes
    } else if has("B-") || has("I-") {
        Scheme::Bio
    } else {
        Scheme::Plain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scheme(names: &[&str]) -> Scheme {
        LabelSet::new(names.iter().copied(), &mut vec![Label::default(); names.len()]).scheme()
    }

    #[test]
    fn schemes_are_detected_from_the_labels() {
        assert_eq!(scheme(&["O", "B-PER", "I-PER"]), Scheme::Bio);
        assert_eq!(scheme(&["O", "I-PER"]), Scheme::Bio);
        assert_eq!(scheme(&["O", "B-PER", "I-PER", "E-PER", "S-PER"]), Scheme::Bioes);
        assert_eq!(scheme(&["O", "B-PER", "I-PER", "L-PER", "U-PER"]), Scheme::Bioes);
        assert_eq!(scheme(&["O", "B-PER", "M-PER", "E-PER", "S-PER"]), Scheme::Bmes);
        assert_eq!(scheme(&["O", "B-PER", "E-PER", "S-PER"]), Scheme::Bmes);
        assert_eq!(scheme(&["O", "B-PER", "I-PER", "E-MAIL"]), Scheme::Bio);
        assert_eq!(scheme(&["O", "E-MAIL", "S-BAHN"]), Scheme::Plain);
        assert_eq!(scheme(&["NOUN", "VERB"]), Scheme::Plain);
        assert_eq!(scheme(&[]), Scheme::Plain);
    }

    #[test]
    fn labels_are_split() {
        let mut buffer = [Label::default(); 8];
        let names = ["O", "B-some-thing", "I-some-thing", "X", "", "-", "B-", "O"];
        let set = LabelSet::new(names, &mut buffer);
        let parts: Vec<_> = set.iter().map(|l| (l.position, l.entity)).collect();
        use TagPosition::*;
        assert_eq!(
            parts,
            [
                (Outside, "O"),
                (Begin, "some-thing"),
                (Inside, "some-thing"),
                (Unmarked, "X"),
                (Unmarked, ""),
                (Unmarked, "-"),
                (Begin, ""),
                (Outside, "O")
            ]
        );
    }

    #[test]
    fn transitions_of_each_scheme() {
        let mut buffer = [Label::default(); 9];
        let names = ["O", "B-A", "I-A", "E-A", "S-A", "B-B", "I-B", "E-B", "S-B"];
        let set = LabelSet::new(names, &mut buffer);
        for (previous, from) in [None].into_iter().chain((0..9).map(Some)).zip(0..) {
            // An open A or B continues or ends; anything else is followed by a beginning.
            let expected: &[usize] = match from {
                2 | 3 => &[2, 3],
                6 | 7 => &[6, 7],
                _ => &[0, 1, 4, 5, 8],
            };
            let legal: Vec<usize> = (0..9).filter(|l| set.may_follow(previous, *l)).collect();
            assert_eq!(legal, expected, "{previous:?}");
        }
        assert_eq!((0..9).filter(|l| set.may_end(*l)).collect::<Vec<_>>(), [0, 3, 4, 7, 8]);

        let mut buffer = [Label::default(); 6];
        let set = LabelSet::new(["O", "B-A", "I-A", "B-B", "I-B", "I-C"], &mut buffer);
        for (previous, from) in [None].into_iter().chain((0..6).map(Some)).zip(0..) {
            let expected: &[usize] = match from {
                2 | 3 => &[0, 1, 2, 3, 5],
                4 | 5 => &[0, 1, 3, 4, 5],
                _ => &[0, 1, 3, 5],
            };
            let legal: Vec<usize> = (0..6).filter(|l| set.may_follow(previous, *l)).collect();
            assert_eq!(legal, expected, "{previous:?}");
        }
    }
}
