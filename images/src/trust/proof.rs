//! Proofs that a log contains an entry: a path in a Merkle tree (RFC 6962, section 2.1.1) to a tree head that the log
//! has signed ("checkpoint", a signed note).

use super::Checked;
use super::json;
use super::key::PublicKey;
use super::key::sha256;

/// Longest path: a tree of 2^63 entries.
const MAX_PATH: usize = 63;
/// Largest checkpoint, in bytes.
const MAX_CHECKPOINT: usize = 16 << 10;
/// Most signature lines of a checkpoint that are looked at: witnesses sign too.
const MAX_LINES: usize = 32;

/// A path and the tree head it leads to.
#[derive(Debug, Clone)]
pub(super) struct Proof {
    pub(super) index: u64,
    pub(super) size: u64,
    pub(super) root: Vec<u8>,
    pub(super) hashes: Vec<Vec<u8>>,
    /// The signed note.
    pub(super) checkpoint: String,
}

/// Whether the log with this key has `body` in its tree.
pub(super) fn verify(proof: &Proof, body: &[u8], key: &PublicKey) -> Checked<()> {
    let root = root_of(proof, body)?;
    if root.as_slice() != proof.root {
        return Err("the log's proof does not lead to its tree head".into());
    }
    let (size, signed_root) = checkpoint(&proof.checkpoint, key)?;
    if size != proof.size || signed_root != proof.root {
        return Err("the log's proof is for another tree head than the signed one".into());
    }
    Ok(())
}

fn root_of(proof: &Proof, body: &[u8]) -> Checked<[u8; 32]> {
    if proof.index >= proof.size || proof.hashes.len() > MAX_PATH {
        return Err("the log's proof is malformed".into());
    }
    let mut leaf = vec![0];
    leaf.extend(body);
    let mut hash = sha256(&leaf);
    // RFC 9162, section 2.1.3.2.
    let (mut node, mut last) = (proof.index, proof.size - 1);
    for sibling in &proof.hashes {
        if sibling.len() != 32 || last == 0 {
            return Err("the log's proof is malformed".into());
        }
        let join = |left: &[u8], right: &[u8]| {
            let mut both = vec![1];
            both.extend(left);
            both.extend(right);
            sha256(&both)
        };
        if node & 1 == 1 || node == last {
            hash = join(sibling, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = join(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last == 0 { Ok(hash) } else { Err("the log's proof is too short".into()) }
}

/// Size and root of a tree head, after a look at its signature.
fn checkpoint(text: &str, key: &PublicKey) -> Checked<(u64, Vec<u8>)> {
    if text.len() > MAX_CHECKPOINT {
        return Err("the log's tree head is too large".into());
    }
    let (note, signatures) = text.split_once("\n\n").ok_or("the log's tree head is not signed")?;
    let signed = format!("{note}\n");
    let holds = signatures.lines().take(MAX_LINES).any(|line| {
        let Some((_, encoded)) = line.strip_prefix("\u{2014} ").and_then(|rest| rest.rsplit_once(' ')) else {
            return false;
        };
        // Four bytes say which key; the key itself decides.
        json::base64(encoded).is_ok_and(|bytes| bytes.len() > 4 && key.verify(signed.as_bytes(), &bytes[4..]))
    });
    if !holds {
        return Err("the log's tree head is not signed by the log".into());
    }
    let mut lines = note.lines();
    lines.next().filter(|origin| !origin.is_empty()).ok_or("the log's tree head has no origin")?;
    let size = lines.next().and_then(|line| line.parse().ok()).ok_or("the log's tree head has no size")?;
    let root =
        lines.next().and_then(|line| json::base64(line).ok()).ok_or("the log's tree head has no root")?;
    Ok((size, root))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(left: &[u8], right: &[u8]) -> Vec<u8> {
        sha256(&[&[1], left, right].concat()).to_vec()
    }

    /// The tree hash and the path by the recursive definition of RFC 6962.
    fn tree(leaves: &[Vec<u8>]) -> Vec<u8> {
        match leaves {
            [one] => sha256(&[&[0][..], one].concat()).to_vec(),
            _ => {
                let split = leaves.len().next_power_of_two() / 2;
                join(&tree(&leaves[..split]), &tree(&leaves[split..]))
            }
        }
    }

    fn path(index: usize, leaves: &[Vec<u8>]) -> Vec<Vec<u8>> {
        if leaves.len() == 1 {
            return Vec::new();
        }
        let split = leaves.len().next_power_of_two() / 2;
        let (mut path, sibling) = if index < split {
            (path(index, &leaves[..split]), tree(&leaves[split..]))
        } else {
            (path(index - split, &leaves[split..]), tree(&leaves[..split]))
        };
        path.push(sibling);
        path
    }

    #[test]
    fn every_leaf_of_every_small_tree() {
        for size in 1..=20usize {
            let leaves: Vec<Vec<u8>> = (0..size).map(|i| format!("leaf {i}").into_bytes()).collect();
            let root = tree(&leaves);
            for index in 0..size {
                let good = Proof {
                    index: index as u64,
                    size: size as u64,
                    root: root.clone(),
                    hashes: path(index, &leaves),
                    checkpoint: String::new(),
                };
                assert_eq!(root_of(&good, &leaves[index]).unwrap().to_vec(), root, "{index} of {size}");
                let differs = |proof: &Proof, body: &[u8]| {
                    root_of(proof, body).map_or(true, |found| found.to_vec() != root)
                };
                assert!(differs(&good, b"other"));
                assert!(differs(&Proof { index: size as u64, ..good.clone() }, &leaves[index]));
                if size > 1 {
                    let moved = (index + 1) % size;
                    assert!(differs(&Proof { index: moved as u64, ..good.clone() }, &leaves[index]));
                    let mut cut = good.clone();
                    cut.hashes.pop();
                    assert!(differs(&cut, &leaves[index]));
                    let mut long = good.clone();
                    long.hashes.push(vec![0; 32]);
                    assert!(differs(&long, &leaves[index]));
                    let mut odd = good.clone();
                    odd.hashes[0].pop();
                    assert!(differs(&odd, &leaves[index]));
                }
            }
        }
    }
}
