//! Decisions that are kept: believed while nothing has changed, made again when something has.

use std::path::Path;
use std::path::PathBuf;

use fs_err as fs;

use super::*;
use crate::store::session::Session;
use crate::store::tests::store;
use crate::trust::testing::MANIFEST;
use crate::trust::testing::SIGNED_AT;
use crate::trust::testing::Signer;
use crate::trust::testing::World;

const NAME: &str = "registry.example.com/team/app:1";
const REPOSITORY: &str = "registry.example.com/team/app";

fn image(store: &Store) -> Descriptor {
    let image = Session::new(store).unwrap().put(crate::media::MANIFEST, MANIFEST).unwrap();
    store.tag(&NAME.parse().unwrap(), &image).unwrap();
    image
}

fn key_policy(folder: &Path, key: &Signer) -> PathBuf {
    let (policy, pem) = (folder.join("policy.json"), folder.join("key.pub"));
    fs::write(&pem, key.pem()).unwrap();
    let text = format!(
        r#"{{"default":[{{"type":"sigstoreSigned","keyPath":"{}","signedIdentity":{{"type":"matchRepository"}}}}]}}"#,
        pem.display()
    );
    fs::write(&policy, text).unwrap();
    policy
}

#[test]
fn a_decision_is_kept_until_something_changes() {
    let (dir, store) = store();
    let image = image(&store);
    let world = World::new();
    let policy = key_policy(dir.path(), &world.signer);
    let names = [NAME.parse().unwrap()];
    let check = |now| store.check_trust(&image, &names, &policy, now);
    // Nobody recorded anything: as if there were no signature.
    assert!(matches!(check(SIGNED_AT), Err(Error::Untrusted { .. })));

    let origin = Origin::registry(&names[0]);
    let material = [world.by_key(REPOSITORY).material()];
    store.record_trust(&image.digest, &origin, &material, None).unwrap();
    assert_eq!(check(SIGNED_AT).unwrap().len(), 1);
    let verdict = store.trust_records(&image.digest).unwrap()[0].verdict.clone().unwrap();
    assert_eq!(verdict.inputs, [policy.clone(), dir.path().join("key.pub")]);
    // Kept: the signatures are not needed now.
    let signatures = store.trust_path(&image.digest, SIGNATURES);
    let kept = fs::read(&signatures).unwrap();
    fs::remove_file(&signatures).unwrap();
    assert!(check(SIGNED_AT + 1).is_ok());
    // Another key in the same place: decided again, and refused.
    key_policy(dir.path(), &Signer::new());
    assert!(check(SIGNED_AT).unwrap_err().to_string().contains("missing from the store"));
    fs::write(&signatures, kept).unwrap();
    assert!(check(SIGNED_AT).unwrap_err().to_string().contains("not by the expected key"));
    fs::write(dir.path().join("policy.json"), r#"{"default":[{"type":"reject"}]}"#).unwrap();
    assert!(check(SIGNED_AT).unwrap_err().to_string().contains("rejects"));
    fs::write(dir.path().join("policy.json"), "{").unwrap();
    assert!(matches!(check(SIGNED_AT), Err(Error::InvalidPolicy { .. })));
    fs::remove_file(dir.path().join("policy.json")).unwrap();
    assert!(matches!(check(SIGNED_AT), Err(Error::InvalidPolicy { .. })));
    // Back to the first: no network was needed for any of this.
    key_policy(dir.path(), &world.signer);
    assert!(check(SIGNED_AT).is_ok());
}

#[test]
fn a_decision_expires_with_its_key() {
    let (dir, store) = store();
    let image = image(&store);
    let policy = dir.path().join("policy.json");
    fs::write(&policy, r#"{"default":[{"type":"reject"}]}"#).unwrap();
    let names = [NAME.parse().unwrap()];
    let origin = Origin::registry(&names[0]);
    let accepted = Accepted { expires: Some(1000), ..Accepted::default() };
    let verdict = Verdict::new(&Policy::read(&policy).unwrap(), &origin, vec![accepted], 0).unwrap();
    store.record_trust(&image.digest, &origin, &[], Some(verdict)).unwrap();
    assert!(store.check_trust(&image, &names, &policy, 999).is_ok());
    assert!(store.check_trust(&image, &names, &policy, 1000).is_err());
    // Another policy with the same content elsewhere is not this one.
    let other = dir.path().join("other.json");
    fs::copy(&policy, &other).unwrap();
    assert!(store.check_trust(&image, &names, &other, 999).is_err());
}

#[test]
fn records_go_with_the_image_and_damage_is_found() {
    let (_dir, store) = store();
    let image = image(&store);
    let origin = Origin::registry(&NAME.parse().unwrap());
    let material = [World::new().by_key(REPOSITORY).material()];
    for number in 0..MAX_ORIGINS + 4 {
        let name: Reference = format!("registry.example.com/x{number}").parse().unwrap();
        store.record_trust(&image.digest, &Origin::registry(&name), &material, None).unwrap();
    }
    store.record_trust(&image.digest, &origin, &material, None).unwrap();
    let records = store.trust_records(&image.digest).unwrap();
    assert_eq!(records.len(), MAX_ORIGINS);
    assert_eq!(records.last().unwrap().origin, origin);
    assert_eq!(store.trust_material(&image.digest).unwrap().last().unwrap().1, material);
    store.remove_unreferenced().unwrap();
    assert_eq!(store.trust_files().unwrap().len(), 2);
    fs::write(store.trust_path(&image.digest, ""), "{").unwrap();
    let problems = store.check(true).unwrap();
    assert!(problems.iter().any(|p| p.what.contains("record of trust")), "{problems:?}");
    assert!(store.check(false).unwrap().iter().all(|p| !p.what.contains("trust")));
    store.untag(&NAME.parse().unwrap()).unwrap();
    store.remove_unreferenced().unwrap();
    assert_eq!(store.trust_files().unwrap(), []);
}
