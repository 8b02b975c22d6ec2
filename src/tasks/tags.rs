//! Tag schemes: what the labels of a token classifier say about entities.
//!
//! | scheme | begins | goes on | ends | a single token |
//! |---|---|---|---|---|
//! | IOB2 (Ramshaw and Marcus, cmp-lg/9505040) | `B-` | `I-` | | |
//! | IOB1 (CoNLL-2003) | `I-`; `B-` directly after an entity of the same name | `I-` | | |
//! | BIOES, BILOU (Ratinov and Roth, W09-1119) | `B-` | `I-` | `E-` or `L-` | `S-` or `U-` |
//! | BMES (Xue, O03-4002) | `B-` | `M-` | `E-` | `S-` |
//!
//! The labels of IOB1 and IOB2 are the same, so that both are [`Scheme::Bio`] unless the caller says which.
//!
//! A label without a prefix of its scheme is the name of an entity. `O` marks tokens outside of entities, and so
//! do `B-O` and `I-O`. Other spellings are understood where no entity could be meant:
//!
//! - `B_PER`, `B:PER`, `b-per`, `PER-B`, and `B` without a name, whose entities are named `ENTITY`, where the set
//!   of labels as a whole has a scheme in that spelling;
//! - in a scheme without `O`, the only label without a prefix is the outside one, whatever its name; in a set of
//!   plain names it is `o`, `OUT`, `OUTSIDE`, `NONE`, `NULL`, `NIL` or `NO-ENTITY` in any case;
//! - `[PAD]`, `[CLS]` and their like are never entities, nor is `X`, which stands for pieces that continue a word.
//!
//! [`LabelRules`] says what the names do not.

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
    /// Beginning, inside: IOB1 or IOB2. An inside may begin an entity.
    Bio,
    /// Inside; a beginning separates an entity from one of the same name directly before it.
    Iob1,
    /// Every entity starts with a beginning.
    Iob2,
    /// Beginning, inside, end, single; BILOU, too.
    Bioes,
    /// Beginning, middle, end, single.
    Bmes,
}

impl Scheme {
    /// All schemes with the names that the command uses.
    pub const NAMES: [(&'static str, Self); 7] = [
        ("plain", Self::Plain),
        ("bio", Self::Bio),
        ("iob1", Self::Iob1),
        ("iob2", Self::Iob2),
        ("bioes", Self::Bioes),
        ("bilou", Self::Bioes),
        ("bmes", Self::Bmes),
    ];

    /// The scheme with this name.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(n, _)| *n == name).map(|(_, scheme)| *scheme)
    }
}

/// What the names of the labels do not say.
#[derive(Clone, Copy, Debug, Default)]
pub struct LabelRules<'n> {
    /// The scheme, instead of the one that the names suggest.
    pub scheme: Option<Scheme>,
    /// Labels that mark tokens outside of entities, besides those that are known to.
    pub outside: &'n [&'n str],
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
    /// Whether some label is inside this entity.
    insides: bool,
}

/// Where a label has the letter of its scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spelling {
    /// `B-PER`, as everybody writes it.
    Usual,
    /// `B_PER`, `b-per`.
    Before(char),
    /// `PER-B`.
    After(char),
    /// `B`.
    Alone,
}

impl Spelling {
    /// Separators of the unusual ones.
    const SEPARATORS: [char; 6] = ['-', '_', ':', '.', '/', '|'];

    /// All of them, the usual one first.
    fn all() -> impl Iterator<Item = Self> {
        [Self::Usual]
            .into_iter()
            .chain(Self::SEPARATORS.map(Self::Before))
            .chain(Self::SEPARATORS.map(Self::After))
            .chain([Self::Alone])
    }

    /// The letter, in upper case, and the name of the entity.
    fn parts(self, name: &str) -> Option<(u8, &str)> {
        let (letter, entity) = match self {
            Self::Usual => name.split_once('-')?,
            Self::Before(separator) => name.split_once(separator)?,
            Self::After(separator) => {
                name.rsplit_once(separator).map(|(entity, letter)| (letter, entity))?
            }
            Self::Alone => (name, "ENTITY"),
        };
        match letter.as_bytes() {
            [letter] if self == Self::Usual => Some((*letter, entity)),
            [letter] => Some((letter.to_ascii_uppercase(), entity)),
            _ => None,
        }
    }

    /// The scheme of labels that are spelled like this.
    fn scheme(self, labels: &[Label<'_>]) -> Option<Scheme> {
        let with = |letter| {
            let parts = labels.iter().filter_map(move |label| self.parts(label.name));
            parts.filter(move |part| part.0 == letter).map(|(_, entity)| entity)
        };
        let has = |letter| with(letter).next().is_some();
        if !has(b'B') && !has(b'I') {
            return None;
        }
        let both = |a, b| with(a).any(|entity| with(b).any(|other| other == entity));
        let scheme = if both(b'B', b'M') || both(b'B', b'E') && has(b'S') && !has(b'I') {
            Scheme::Bmes
        } else if both(b'B', b'E') || both(b'B', b'L') {
            Scheme::Bioes
        } else {
            Scheme::Bio
        };
        // Plain names may look like the unusual spellings: B_CELL and T_CELL, VITAMIN-B and VITAMIN-E. So
        // either two labels agree on an entity, or all labels have a letter; and both for PER-B and for B,
        // but for one label, which is then the outside one.
        let pair = match scheme {
            Scheme::Bio | Scheme::Bioes => both(b'B', b'I') || both(b'B', b'L'),
            _ => true,
        };
        let outside = |label: &&Label<'_>| means_outside(label.name);
        let other = |label: &&Label<'_>| {
            split(scheme, self, label.name).is_none() && !outside(label) && !is_special(label.name)
        };
        let others = labels.iter().filter(other).count();
        let most = usize::from(!labels.iter().any(|label| outside(&label)));
        let certain = match self {
            Self::Usual => true,
            Self::Before(_) => pair || others == 0 && has(b'I'),
            Self::After(_) | Self::Alone => pair && others <= most || others == 0 && has(b'I'),
        };
        certain.then_some(scheme)
    }
}

/// Position and entity of a label; `None` if the scheme has no such prefix.
fn split(scheme: Scheme, spelling: Spelling, name: &str) -> Option<(TagPosition, &str)> {
    use Scheme::{Bioes, Bmes, Plain};
    let (letter, entity) = spelling.parts(name)?;
    let position = match (scheme, letter) {
        (Plain, _) => return None,
        (_, b'B') => TagPosition::Begin,
        // Some BMES corpora mark a middle that way.
        (_, b'I') | (Bmes, b'M') => TagPosition::Inside,
        (Bioes | Bmes, b'E') | (Bioes, b'L') => TagPosition::End,
        (Bioes | Bmes, b'S') | (Bioes, b'U') => TagPosition::Single,
        _ => return None,
    };
    Some((position, entity))
}

/// Whether the name says so, in a set of labels without `O`.
fn means_outside(name: &str) -> bool {
    const NAMES: [&str; 10] = [
        "O",
        "OUT",
        "OUTSIDE",
        "NONE",
        "NULL",
        "NIL",
        "NO-ENTITY",
        "NO_ENTITY",
        "NON-ENTITY",
        "NON_ENTITY",
    ];
    NAMES.iter().any(|other| name.eq_ignore_ascii_case(other))
}

/// Whether a label is that of special tokens, which some training scripts have.
fn is_special(name: &str) -> bool {
    ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", "<PAD>", "<UNK>", "<START>", "<STOP>"]
        .iter()
        .any(|other| name.eq_ignore_ascii_case(other))
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
    /// `I-X`. So a lonely `E-MAIL` does not make a scheme. Unusual spellings need more: two labels that
    /// agree on an entity, or letters in all labels.
    ///
    /// ```
    /// use bertlet::tasks::{Label, LabelSet, Scheme};
    /// let mut buffer = [Label::default(); 3];
    /// let set = LabelSet::new(["O", "B-PER", "I-PER"], &mut buffer);
    /// assert_eq!(set.scheme(), Scheme::Bio);
    /// assert_eq!(set.get(2).unwrap().entity, "PER");
    /// ```
    pub fn new(names: impl IntoIterator<Item = &'a str>, buffer: &'b mut [Label<'a>]) -> Self {
        Self::with_rules(names, buffer, &LabelRules::default())
    }

    /// [`LabelSet::new`] with what the names do not say.
    pub fn with_rules(
        names: impl IntoIterator<Item = &'a str>,
        buffer: &'b mut [Label<'a>],
        rules: &LabelRules<'_>,
    ) -> Self {
        let mut count = 0;
        for (label, name) in buffer.iter_mut().zip(names) {
            *label = Label { name, ..Label::default() };
            count += 1;
        }
        let labels = &mut buffer[..count];
        let detected = Spelling::all().find_map(|s| s.scheme(labels).map(|scheme| (s, scheme)));
        let (spelling, detected) = detected.unwrap_or((Spelling::Usual, Scheme::Plain));
        let scheme = rules.scheme.unwrap_or(detected);
        let specials = labels.iter().any(|label| is_special(label.name));
        for label in labels.iter_mut() {
            let outside = label.name == "O"
                || rules.outside.contains(&label.name)
                || is_special(label.name)
                || specials && label.name == "X";
            (label.position, label.entity) = match split(scheme, spelling, label.name) {
                _ if outside => (TagPosition::Outside, "O"),
                Some((_, "O" | "o")) => (TagPosition::Outside, "O"),
                Some(parts) => parts,
                None => (TagPosition::Unmarked, label.name),
            };
        }
        find_outside(labels, scheme);
        for i in 0..count {
            let of_family = |other: &Label<'_>| {
                other.entity == labels[i].entity
                    && (other.position == TagPosition::Outside)
                        == (labels[i].position == TagPosition::Outside)
            };
            let family = labels.iter().position(of_family).unwrap_or(i);
            let has = |position| labels.iter().any(|l| of_family(l) && l.position == position);
            let (begins, insides) = (has(TagPosition::Begin), has(TagPosition::Inside));
            labels[i] = Label { family, begins, insides, ..labels[i] };
        }
        Self { labels, scheme }
    }

    /// The scheme that was detected or given.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The same labels in another scheme that gives each the same position.
    pub(super) fn read_as(&self, scheme: Scheme) -> Self {
        Self { scheme, ..*self }
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
        use Scheme::{Bio, Iob1, Iob2, Plain};
        let previous = previous.and_then(|i| self.get(i)).filter(|p| self.is_open(p));
        let next = self.get(next).copied().unwrap_or_default();
        let same = previous.is_some_and(|p| p.family == next.family);
        match (self.scheme, next.position) {
            // An entity may end anywhere; one that nothing can begin starts with its inside.
            (Plain | Iob2, TagPosition::Inside) => same || !next.begins,
            (Bio, TagPosition::Inside) => same || previous.is_none() || !next.begins,
            (Iob1, TagPosition::Begin) => same || !next.insides,
            (Plain | Bio | Iob1 | Iob2, _) => true,
            (_, TagPosition::Inside | TagPosition::End) => same,
            (_, _) => previous.is_none(),
        }
    }

    /// Whether the text may end with this label.
    pub fn may_end(&self, last: usize) -> bool {
        !matches!(self.scheme, Scheme::Bioes | Scheme::Bmes)
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

/// Finds the label that stands for `O` where no label is named so.
fn find_outside(labels: &mut [Label<'_>], scheme: Scheme) {
    if labels.iter().any(|label| label.position == TagPosition::Outside && !is_special(label.name))
    {
        return;
    }
    let unmarked = |label: &&mut Label<'_>| label.position == TagPosition::Unmarked;
    let only = labels.iter_mut().filter(unmarked).count() == 1 && scheme != Scheme::Plain;
    for label in labels.iter_mut().filter(unmarked) {
        if only || means_outside(label.name) {
            (label.position, label.entity) = (TagPosition::Outside, "O");
        }
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

    /// Positions as letters (`-`: outside, `?`: unmarked), then the entity.
    fn parts(names: &[&str], rules: &LabelRules<'_>) -> Vec<String> {
        let mut buffer = vec![Label::default(); names.len()];
        let set = LabelSet::with_rules(names.iter().copied(), &mut buffer, rules);
        let part = |label: &Label<'_>| match label.position {
            TagPosition::Outside => "-".to_owned(),
            TagPosition::Begin => format!("B {}", label.entity),
            TagPosition::Inside => format!("I {}", label.entity),
            TagPosition::End => format!("E {}", label.entity),
            TagPosition::Single => format!("S {}", label.entity),
            TagPosition::Unmarked => format!("? {}", label.entity),
        };
        set.iter().map(part).collect()
    }

    #[test]
    fn unusual_spellings_are_understood() {
        for (names, expected) in [
            (["O", "B_PER", "I_PER", "B_LOC"], ["-", "B PER", "I PER", "B LOC"]),
            (["O", "PER-B", "PER-I", "LOC-B"], ["-", "B PER", "I PER", "B LOC"]),
            (["O", "PER_B", "PER_I", "LOC_NAME_B"], ["-", "B PER", "I PER", "B LOC_NAME"]),
            (["o", "b-per", "i-per", "b-loc"], ["-", "B per", "I per", "B loc"]),
            (["O", "b_per", "i_per", "b_loc_name"], ["-", "B per", "I per", "B loc_name"]),
            (["B:PER", "I:PER", "O", "MISC"], ["B PER", "I PER", "-", "? MISC"]),
            (["O", "I_PER", "I_LOC", "[PAD]"], ["-", "I PER", "I LOC", "-"]),
            (["B", "I", "O", "[CLS]"], ["B ENTITY", "I ENTITY", "-", "-"]),
            (["I", "o", "b", "<pad>"], ["I ENTITY", "-", "B ENTITY", "-"]),
            (["O", "B", "E", "S"], ["-", "B ENTITY", "E ENTITY", "S ENTITY"]),
            (["O", "B_PER", "E_PER", "S_LOC"], ["-", "B PER", "E PER", "S LOC"]),
            (["B_PER", "I_PER", "L_PER", "U_PER"], ["B PER", "I PER", "E PER", "S PER"]),
        ] {
            assert_eq!(parts(&names, &LabelRules::default()), expected);
        }
    }

    #[test]
    fn names_that_only_look_like_a_spelling_are_names() {
        for names in [
            &["O", "B_CELL", "T_CELL"][..],
            &["O", "VITAMIN-B", "VITAMIN-E"],
            &["O", "e-mail", "i-phone"],
            &["N", "V", "B", "I"],
            &["LABEL_0", "LABEL_1", "LABEL_2"],
            &["O", "LEVEL_I", "LEVEL_II", "LEVEL_B"],
        ] {
            for (name, part) in names.iter().zip(parts(names, &LabelRules::default())) {
                let expected = if *name == "O" { "-".into() } else { format!("? {name}") };
                assert_eq!(part, expected, "{names:?}");
            }
        }
    }

    #[test]
    fn outside_labels_with_other_names_are_found() {
        for (names, expected) in [
            (&["B-O", "I-O", "B-PER", "I-PER"][..], &["-", "-", "B PER", "I PER"][..]),
            (&["B-O", "I-O", "O", "B-PER"], &["-", "-", "-", "B PER"]),
            (&["S-O", "O", "B-X", "E-X", "S-X"], &["-", "-", "B X", "E X", "S X"]),
            (&["0", "B-PER", "I-PER"], &["-", "B PER", "I PER"]),
            (&["B-PER", "I-PER", "OTHER"], &["B PER", "I PER", "-"]),
            (&["LABEL_0", "B_PER", "I_PER"], &["-", "B PER", "I PER"]),
            (&["O", "B-PER", "I-PER", "OTHER"], &["-", "B PER", "I PER", "? OTHER"]),
            (&["none", "PER", "LOC"], &["-", "? PER", "? LOC"]),
            (&["O", "NONE", "PER"], &["-", "? NONE", "? PER"]),
            (&["OUT", "PER"], &["-", "? PER"]),
            (&["o", "per"], &["-", "? per"]),
            (
                &["[PAD]", "O", "B-PER", "I-PER", "X", "[CLS]", "[SEP]"],
                &["-", "-", "B PER", "I PER", "-", "-", "-"],
            ),
            (&["O", "B-PER", "X"], &["-", "B PER", "? X"]),
        ] {
            assert_eq!(parts(names, &LabelRules::default()), expected);
        }
    }

    #[test]
    fn rules_say_what_the_names_do_not() {
        let outside = LabelRules { outside: &["LABEL_0", "SPACE"], ..LabelRules::default() };
        assert_eq!(parts(&["LABEL_0", "LABEL_1"], &outside), ["-", "? LABEL_1"]);
        assert_eq!(parts(&["O", "B-PER", "SPACE"], &outside), ["-", "B PER", "-"]);
        let plain = LabelRules { scheme: Some(Scheme::Plain), ..LabelRules::default() };
        assert_eq!(parts(&["O", "B-PER"], &plain), ["-", "? B-PER"]);
        for (name, scheme) in Scheme::NAMES {
            let rules = LabelRules { scheme: Scheme::from_name(name), ..LabelRules::default() };
            let mut buffer = [Label::default(); 2];
            let set = LabelSet::with_rules(["O", "B-X"], &mut buffer, &rules);
            assert_eq!(set.scheme(), scheme);
        }
    }

    #[test]
    fn labels_are_split() {
        let names = ["O", "B-some-thing", "I-some-thing", "X", "", "-", "B-", "O"];
        assert_eq!(
            parts(&names, &LabelRules::default()),
            ["-", "B some-thing", "I some-thing", "? X", "? ", "? -", "B ", "-"]
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

        let mut buffer = [Label::default(); 7];
        let set = LabelSet::new(["O", "B-A", "I-A", "B-B", "I-B", "I-C", "B-D"], &mut buffer);
        assert_eq!(set.scheme(), Scheme::Bio);
        // After nothing or O, after an A, after a B, after a C, after a D.
        for (scheme, expected) in [
            // An inside begins an entity, but not directly after another one.
            (
                Scheme::Bio,
                [
                    &[0, 1, 2, 3, 4, 5, 6][..],
                    &[0, 1, 2, 3, 5, 6],
                    &[0, 1, 3, 4, 5, 6],
                    &[0, 1, 3, 5, 6],
                    &[0, 1, 3, 5, 6],
                ],
            ),
            // An entity starts with its beginning, if there is one.
            (
                Scheme::Iob2,
                [
                    &[0, 1, 3, 5, 6],
                    &[0, 1, 2, 3, 5, 6],
                    &[0, 1, 3, 4, 5, 6],
                    &[0, 1, 3, 5, 6],
                    &[0, 1, 3, 5, 6],
                ],
            ),
            // A beginning follows an entity of its kind, if there is an inside for the others.
            (
                Scheme::Iob1,
                [
                    &[0, 2, 4, 5, 6],
                    &[0, 1, 2, 4, 5, 6],
                    &[0, 2, 3, 4, 5, 6],
                    &[0, 2, 4, 5, 6],
                    &[0, 2, 4, 5, 6],
                ],
            ),
        ] {
            let set = set.read_as(scheme);
            for (previous, from) in [None].into_iter().chain((0..7).map(Some)).zip(0..) {
                let expected = expected[[0, 0, 1, 1, 2, 2, 3, 4][from]];
                let legal: Vec<usize> = (0..7).filter(|l| set.may_follow(previous, *l)).collect();
                assert_eq!(legal, expected, "{scheme:?} {previous:?}");
            }
        }
    }
}
