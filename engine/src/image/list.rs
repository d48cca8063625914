//! The list of images, and which of them are asked for.

use dhow_images::{Platform, Reference, Summary};
use jiff::Timestamp;

use crate::engine::Engine;
use crate::error::Result;
use crate::prune::Label;

/// Which images are listed; the default is all of them. Of several values of one kind one must fit, but every label.
#[derive(Debug, Clone, Default)]
pub struct ImageFilters {
    /// Only those without a name, or only those with one.
    pub dangling: Option<bool>,
    /// Only those with a variant that has all these labels, with this value where one is given.
    pub labels: Vec<Label>,
    /// Only those made before this image.
    pub before: Vec<String>,
    /// Only those made after this image.
    pub since: Vec<String>,
    /// Only names that fit one of these patterns, see [`matches_reference`].
    pub references: Vec<String>,
    /// Only those that have this platform here.
    pub platforms: Vec<Platform>,
}

impl Engine {
    /// Every name in the store that passes, newest image first.
    ///
    /// # Errors
    /// When the store cannot be read, or an image that filters name is not there.
    pub fn images(&self, filters: &ImageFilters) -> Result<Vec<Summary>> {
        let mut images = self.store().summaries()?;
        let made = |wanted: &String| -> Result<Option<Timestamp>> {
            let target = self.find_image(wanted)?;
            Ok(images.iter().find(|image| image.target.digest == target.digest).and_then(created))
        };
        let before: Vec<_> = filters.before.iter().map(made).collect::<Result<_>>()?;
        let since: Vec<_> = filters.since.iter().map(made).collect::<Result<_>>()?;
        images.retain(|image| {
            let made = created(image);
            passes(image, filters)
                && before.iter().all(|limit| made < *limit)
                && since.iter().all(|limit| made > *limit)
        });
        // Stable, so equal ones stay in the order of their names.
        images.sort_by_cached_key(|image| std::cmp::Reverse(created(image)));
        Ok(images)
    }
}

/// When the first variant that is here was made, if it says so.
pub fn created(image: &Summary) -> Option<Timestamp> {
    let first = image.variants.iter().find(|variant| variant.present)?;
    first.created.as_deref()?.parse().ok()
}

fn passes(image: &Summary, filters: &ImageFilters) -> bool {
    let mut here = image.variants.iter().filter(|variant| variant.present);
    filters.dangling.is_none_or(|dangling| dangling == image.reference.is_none())
        && (filters.labels.is_empty()
            || here.clone().any(|variant| {
                filters.labels.iter().all(|(name, value)| {
                    variant
                        .labels
                        .get(name)
                        .is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
                })
            }))
        && (filters.references.is_empty()
            || image.reference.as_ref().is_some_and(|name| {
                filters.references.iter().any(|pattern| matches_reference(pattern, name))
            }))
        && (filters.platforms.is_empty()
            || here.any(|variant| {
                filters
                    .platforms
                    .iter()
                    .any(|wanted| dhow_images::Matcher::only(wanted).matches(&variant.platform))
            }))
}

/// Whether a name fits a pattern as Docker reads one: `*` and `?` stand for anything but `/`, `[a-c]` for one of these,
/// and the pattern is for the whole name, with or without its tag.
pub fn matches_reference(pattern: &str, name: &Reference) -> bool {
    // What is a name itself means that name, however it is written.
    if let Ok(wanted) = Reference::parse(pattern) {
        let bare = !pattern.contains('@') && !pattern.rsplit('/').next().unwrap_or(pattern).contains(':');
        if if bare { wanted.familiar_name() == name.familiar_name() } else { wanted == *name } {
            return true;
        }
    }
    let plain = name.familiar_name();
    let tagged = name.tag().map(|tag| format!("{plain}:{tag}"));
    let pattern: Vec<char> = pattern.chars().collect();
    [Some(plain), tagged, Some(name.familiar())]
        .into_iter()
        .flatten()
        .any(|text| glob(&pattern, &text.chars().collect::<Vec<_>>()))
}

/// Go's `path.Match`. A pattern that is not valid fits nothing.
fn glob(mut pattern: &[char], mut text: &[char]) -> bool {
    // Where to go on if what follows the last star does not fit here.
    let mut retry: Option<(&[char], &[char])> = None;
    loop {
        let fits = match (pattern.first(), text.first()) {
            (None, None) => return true,
            (Some('*'), _) => {
                pattern = &pattern[1..];
                retry = Some((pattern, text));
                continue;
            }
            (Some('?'), Some(c)) if *c != '/' => Some(1),
            (Some('['), Some(c)) => class(pattern, *c),
            (Some('\\'), Some(c)) => (pattern.get(1) == Some(c)).then_some(2),
            (Some(p), Some(c)) if p == c && *p != '?' => Some(1),
            _ => None,
        };
        match (fits, retry) {
            (Some(used), _) => (pattern, text) = (&pattern[used..], &text[1..]),
            (None, Some((after, [c, rest @ ..]))) if *c != '/' => {
                (pattern, text) = (after, rest);
                retry = Some((after, rest));
            }
            (None, _) => return false,
        }
    }
}

/// Whether a character is in the class at the start of a pattern: then the length of the class.
fn class(pattern: &[char], c: char) -> Option<usize> {
    let mut at = 1;
    let negated = matches!(pattern.get(at), Some('^'));
    at += usize::from(negated);
    let mut found = false;
    let start = at;
    loop {
        let mut next = || -> Option<char> {
            at += usize::from(pattern.get(at) == Some(&'\\'));
            at += 1;
            pattern.get(at - 1).copied()
        };
        let low = next()?;
        if low == ']' && at > start + 1 {
            return (found != negated && c != '/').then_some(at);
        }
        let high = if pattern.get(at) == Some(&'-') {
            at += 1;
            at += usize::from(pattern.get(at) == Some(&'\\'));
            at += 1;
            *pattern.get(at - 1)?
        } else {
            low
        };
        found |= (low..=high).contains(&c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_docker_s() {
        for (pattern, name, fits) in [
            ("hello", "hello:1", true),
            ("hello:1", "hello:1", true),
            ("hello:2", "hello:1", false),
            ("docker.io/library/hello", "hello:1", true),
            ("h*", "hello:1", true),
            ("h*:1", "hello:1", true),
            ("*:latest", "hello:1", false),
            ("*", "hello:1", true),
            ("*", "team/hello:1", false),
            ("*/*", "team/hello:1", true),
            ("*/*/*", "localhost:5000/team/hello:1", true),
            ("he??o", "hello:1", true),
            ("he?o", "hello:1", false),
            ("h[a-f]llo", "hello:1", true),
            ("h[^a-f]llo", "hello:1", false),
            ("h[xyz]llo", "hello:1", false),
            ("h[", "hello:1", false),
            ("*l*o*", "hello:1", true),
            ("", "hello:1", false),
        ] {
            let name = Reference::parse(name).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(matches_reference(pattern, &name), fits, "{pattern} {name}");
        }
    }
}
