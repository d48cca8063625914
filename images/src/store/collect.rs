//! Automatic collection: images that nobody used for long go until the store keeps to its limits.
//!
//! What no name leads to goes first, then images that were not used for longer than allowed, then the least
//! recently used ones. Never goes what a lease or a running operation keeps, or what the policy names. Whether an
//! image is worth removing is not asked: with the last image of a shared layer its space comes back.

use std::collections::HashMap;
use std::time::Duration;
use std::time::SystemTime;

use super::Candidate;
use super::Prune;
use super::Store;
use super::Swept;
use super::gc::Sweep;
use crate::Digest;
use crate::Manifest;
use crate::Reference;
use crate::error::Result;

/// When images go by themselves. The default lets none go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Most bytes of blobs, unpacked layers and derived files.
    pub max_size: Option<u64>,
    /// Bytes that the file system must have left. Has an effect on Unix only.
    pub min_free: Option<u64>,
    /// Images go when they were not used for longer, whatever space there is.
    pub unused_for: Option<Duration>,
    /// What stays in any case.
    pub keep: Vec<Keep>,
}

/// Images that a [`Policy`] does not touch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    /// A name, canonical or familiar, in which `*` stands for any characters: `debian:*`, `registry.local/*`. An
    /// image stays as a whole if one of its names fits.
    Name(String),
    /// A label of the configuration of one of the image's variants, with this value if there is one.
    Label(String, Option<String>),
}

/// What a collection did, or would do.
#[derive(Debug, Clone, Default)]
pub struct Collected {
    /// The images that went, in that order.
    pub images: Vec<Candidate>,
    /// What was deleted; empty when nothing was to be done but look.
    pub swept: Swept,
    /// Bytes of content before and after, derived files included.
    pub before: u64,
    /// See [`Collected::before`].
    pub after: u64,
    /// Whether all limits hold now. They may not when everything that is left is in use or to be kept.
    pub reached: bool,
}

impl Policy {
    /// Whether it lets nothing go.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.max_size.is_none() && self.min_free.is_none() && self.unused_for.is_none()
    }

    fn keeps(&self, store: &Store, image: &Candidate) -> bool {
        let mut labels = None;
        self.keep.iter().any(|keep| match keep {
            Keep::Name(pattern) => image.names.iter().any(|name| names(pattern, name)),
            Keep::Label(key, value) => {
                let labels = labels.get_or_insert_with(|| store.labels(&image.descriptor.digest));
                // Who cannot be asked is kept.
                labels.as_ref().map_or(true, |labels| {
                    labels.iter().any(|(k, v)| k == key && value.as_ref().is_none_or(|value| v == value))
                })
            }
        })
    }
}

/// Whether a pattern fits a name in one of its forms.
fn names(pattern: &str, name: &Reference) -> bool {
    [name.canonical(), name.familiar(), name.familiar_name()]
        .iter()
        .any(|form| fits(pattern.as_bytes(), form.as_bytes()))
}

/// `*` stands for any bytes. Takes at most the product of both lengths in steps.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            p += 1;
            t += 1;
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            p = at + 1;
            t = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

impl Store {
    /// Lets images go until `policy`'s limits hold. With `dry_run` it only says which would go.
    ///
    /// # Errors
    /// When a lease or name cannot be read: then nothing is removed, because nobody knows what it keeps.
    pub fn collect(&self, policy: &Policy, dry_run: bool) -> Result<Collected> {
        if policy.is_off() {
            return Ok(Collected { reached: true, ..Collected::default() });
        }
        if dry_run {
            return self.choose(policy);
        }
        let mut collected = Collected::default();
        let how = Sweep { measure: true, abandoned: Some(Prune::ABANDONED.abandoned_after) };
        let swept = self.sweep(how, || {
            collected = self.choose(policy)?;
            collected.images.iter().try_for_each(|image| self.forget(image))
        })?;
        Ok(Collected { swept, ..collected })
    }

    /// Which images go.
    fn choose(&self, policy: &Policy) -> Result<Collected> {
        let mut images = self.candidates()?;
        images.sort_by(|a, b| {
            a.last_used.cmp(&b.last_used).then_with(|| a.descriptor.digest.cmp(&b.descriptor.digest))
        });
        let sizes = self.sizes()?;
        let before = sizes.values().sum();
        // How many images need each piece of content; what is in use counts as one more.
        let mut needed: HashMap<Digest, u32> = HashMap::new();
        let closures = self.closures(&images)?;
        let used = self.reachable(self.uses()?)?;
        for digest in closures.iter().chain([&used]).flatten() {
            *needed.entry(digest.clone()).or_default() += 1;
        }
        // What nothing leads to goes whatever the limits are.
        let mut after: u64 = needed.keys().filter_map(|digest| sizes.get(digest)).sum();
        let free = self.free_space();
        let holds = |after: u64| {
            policy.max_size.is_none_or(|max| after <= max)
                && policy.min_free.is_none_or(|min| free.is_none_or(|free| free + (before - after) >= min))
        };
        let now = SystemTime::now();
        let mut gone = Vec::new();
        for (image, closure) in images.into_iter().zip(&closures) {
            let age = now.duration_since(image.last_used).unwrap_or_default();
            let aged = policy.unused_for.is_some_and(|limit| age > limit);
            if !aged && holds(after) {
                // Those that follow were used later.
                break;
            }
            if image.in_use || policy.keeps(self, &image) {
                continue;
            }
            for digest in closure {
                let count = needed.entry(digest.clone()).or_default();
                *count = count.saturating_sub(1);
                if *count == 0 {
                    after -= sizes.get(digest).copied().unwrap_or_default();
                }
            }
            gone.push(image);
        }
        Ok(Collected { images: gone, before, after, reached: holds(after), swept: Swept::default() })
    }

    /// Bytes by digest: of the blob, of the unpacked layer, and of what was derived from either.
    fn sizes(&self) -> Result<HashMap<Digest, u64>> {
        let length = |path: &std::path::Path| std::fs::symlink_metadata(path).map_or(0, |m| m.len());
        let mut sizes = HashMap::new();
        for (digest, path) in self.blobs()? {
            *sizes.entry(digest).or_default() += length(&path);
        }
        for (diff_id, _) in self.layers()? {
            *sizes.entry(diff_id.clone()).or_default() += self.layer_size(&diff_id).unwrap_or(0);
        }
        for derived in self.derived()? {
            if let Some(digest) = derived.of {
                *sizes.entry(digest).or_default() += length(&derived.path);
            }
        }
        Ok(sizes)
    }

    /// Bytes that this user may still write to the store's file system.
    fn free_space(&self) -> Option<u64> {
        #[cfg(unix)]
        {
            let stat = rustix::fs::statvfs(self.root()).ok()?;
            // A file system without a size of its own says 0 of 0.
            (stat.f_blocks > 0).then(|| stat.f_bavail.saturating_mul(stat.f_frsize))
        }
        #[cfg(not(unix))]
        None
    }

    /// The labels of every configuration below an image.
    fn labels(&self, image: &Digest) -> Result<Vec<(String, String)>> {
        let mut labels = Vec::new();
        for digest in self.reachable(vec![image.clone()])? {
            let Some(bytes) = self.read_document(&digest)? else { continue };
            if let Ok(manifest) = Manifest::parse(&digest, &bytes) {
                labels.extend(manifest.annotations);
            } else if let Ok(config) = serde_json::from_slice::<crate::ImageConfig>(&bytes) {
                labels.extend(config.config.labels);
            }
        }
        Ok(labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Descriptor;
    use crate::Platform;
    use crate::compose::ImageBuilder;
    use crate::compose::LayerBuilder;
    use crate::store::tests::store;

    const KB: u64 = 1000;

    /// An image of about `size` bytes, last used `age` seconds ago.
    fn image(store: &Store, name: &str, size: usize, age: u64) -> Descriptor {
        let mut layer = LayerBuilder::new();
        let mut state = name.bytes().fold(1_u32, |sum, byte| sum.wrapping_mul(31) + u32::from(byte));
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        };
        layer.file("data", 0o644, (0..size).map(|_| noise()).collect::<Vec<u8>>());
        let mut builder = ImageBuilder::new(&"linux/amd64".parse::<Platform>().unwrap());
        builder.layer(layer);
        let built = builder.build(store).unwrap();
        store.tag(&name.parse().unwrap(), &built).unwrap();
        set_age(store, &built, age);
        built
    }

    fn set_age(store: &Store, image: &Descriptor, age: u64) {
        let time = SystemTime::now() - Duration::from_secs(age);
        let refs = store.root().join("refs");
        let mut paths = vec![store.blob_path(&image.digest)];
        for (file, record) in store.records().unwrap() {
            if record.unwrap().descriptor == *image {
                paths.push(refs.join(file));
            }
        }
        for path in paths {
            fs_err::OpenOptions::new().write(true).open(path).unwrap().file().set_modified(time).unwrap();
        }
    }

    fn names(collected: &Collected) -> Vec<String> {
        collected.images.iter().flat_map(|image| &image.names).map(Reference::familiar_name).collect()
    }

    #[test]
    fn the_least_recently_used_go_until_the_limit_holds() {
        let (_dir, store) = store();
        let used = image(&store, "used", 100_000, 900);
        for (name, age) in [("kept", 800), ("old", 700), ("older", 750), ("new", 100)] {
            image(&store, name, 100_000, age);
        }
        store.lease("c1", std::slice::from_ref(&used.digest), true).unwrap();
        let policy = |max| Policy {
            max_size: Some(max * KB),
            keep: vec![Keep::Name("ke*".into())],
            ..Policy::default()
        };
        let total = store.total_usage().unwrap();
        let whole = store.collect(&policy(10_000), true).unwrap();
        assert!(whole.images.is_empty() && whole.reached);
        assert_eq!((whole.before, whole.after), (total.blobs, total.blobs));
        for (limit, expected, reached) in [
            (450, vec!["older"], true),
            (350, vec!["older", "old"], true),
            (250, vec!["older", "old", "new"], true),
            (50, vec!["older", "old", "new"], false),
        ] {
            let would = store.collect(&policy(limit), true).unwrap();
            assert_eq!(
                (names(&would), would.reached),
                (expected.iter().map(|s| (*s).to_owned()).collect(), reached)
            );
        }
        assert_eq!(store.references().unwrap().len(), 5, "a dry run removes nothing");
        let done = store.collect(&policy(350), false).unwrap();
        let left = store.total_usage().unwrap().blobs;
        assert_eq!((names(&done).len(), done.after, done.swept.freed.content), (2, left, total.blobs - left));
        assert!(left <= 350 * KB);
        assert_eq!(store.check(false).unwrap(), []);
    }

    #[test]
    fn age_alone_is_a_reason() {
        let (_dir, store) = store();
        let (old, young) = (image(&store, "old", 1000, 3600), image(&store, "young", 1000, 60));
        let policy = Policy { unused_for: Some(Duration::from_secs(600)), ..Policy::default() };
        store.touch(&young.digest);
        assert_eq!(names(&store.collect(&policy, true).unwrap()), ["old"]);
        store.touch(&old.digest);
        assert!(store.collect(&policy, false).unwrap().images.is_empty());
        assert!(store.collect(&Policy::default(), false).unwrap().reached);
    }

    #[test]
    fn a_shared_layer_goes_with_its_last_image() {
        let (_dir, store) = store();
        let one = image(&store, "one", 100_000, 500);
        let manifest = crate::Manifest::parse("one", &store.read_blob(&one).unwrap()).unwrap();
        // The same content under another manifest.
        let other = crate::compose::index(&store, std::slice::from_ref(&one)).unwrap();
        store.tag(&"other".parse().unwrap(), &other).unwrap();
        set_age(&store, &other, 400);
        let policy = Policy { max_size: Some(50_000), ..Policy::default() };
        let done = store.collect(&policy, false).unwrap();
        assert_eq!(names(&done), ["one", "other"]);
        assert!(!store.has_blob(&manifest.layers[0].digest) && done.reached);
    }

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "a", true),
            ("*", "", true),
            ("a*c", "abbbc", true),
            ("a*c", "abbbd", false),
            ("*b*", "abc", true),
            ("a**c", "ac", true),
            ("", "a", false),
        ] {
            assert_eq!(fits(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
        let long = "a".repeat(200);
        assert!(!fits("*a".repeat(50).as_bytes(), format!("{long}b").as_bytes()));
        let name: Reference = "debian:12".parse().unwrap();
        for good in ["debian", "debian:*", "docker.io/library/*", "debian:12"] {
            assert!(super::names(good, &name), "{good}");
        }
    }
}
