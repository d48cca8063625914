//! Who the container's process runs as: `user[:group]` against the container's own `/etc/passwd` and `/etc/group`.
//!
//! Both files come from the image and are hostile: they are read with a size limit, by handle, inside the root, and a
//! number is a number even when the file has a user of that name.

use crate::error::{Error, Result};

/// Who a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids, sorted.
    pub groups: Vec<u32>,
    /// Home folder, `/` if unknown.
    pub home: String,
}

struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// Linux ids are 32 bits; the highest means "none".
fn id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse::<u32>().ok()).flatten().filter(|id| *id != u32::MAX)
}

fn users(passwd: &str) -> impl Iterator<Item = User<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = id(fields.nth(1)?)?;
        let gid = id(fields.next()?)?;
        let home = fields.nth(1).unwrap_or("");
        Some(User { name, uid, gid, home })
    })
}

/// Name, number, members.
fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = id(fields.nth(1)?)?;
        Some((name, gid, fields.next().unwrap_or("")))
    })
}

/// Resolves `spec` (empty is user 0) and additional groups.
///
/// # Errors
/// Docker's messages: `unable to find user …`, `unable to find group …`.
pub fn resolve(spec: &str, additional: &[String], passwd: &str, group: &str) -> Result<Identity> {
    let (user_part, group_part) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (spec, None),
    };
    let no_user =
        || Error::Invalid(format!("unable to find user {user_part}: no matching entries in passwd file"));
    let number = if user_part.is_empty() { Some(0) } else { id(user_part) };
    if number.is_none() && user_part.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
        return Err(Error::Invalid(format!(
            "invalid user id {user_part}: user ids are 0 to {}",
            u32::MAX - 1
        )));
    }
    let known = match number {
        Some(uid) => users(passwd).find(|user| user.uid == uid),
        None => Some(users(passwd).find(|user| user.name == user_part).ok_or_else(no_user)?),
    };
    let uid = known.as_ref().map_or(number.unwrap_or(0), |user| user.uid);
    let gid_of = |wanted: &str| {
        id(wanted)
            .or_else(|| groups(group).find(|(name, ..)| *name == wanted).map(|(_, gid, _)| gid))
            .ok_or_else(|| {
                Error::Invalid(format!("unable to find group {wanted}: no matching entries in group file"))
            })
    };
    let gid = match group_part {
        Some(wanted) if !wanted.is_empty() => gid_of(wanted)?,
        Some(_) => return Err(Error::Invalid(format!("invalid user {spec}: the group is empty"))),
        None => known.as_ref().map_or(0, |user| user.gid),
    };
    let mut supplementary = Vec::new();
    // An explicit group replaces the user's own list, as in Docker.
    if let (Some(user), None) = (&known, group_part) {
        let is_member = |members: &str| members.split(',').any(|member| member == user.name);
        supplementary.extend(groups(group).filter(|(.., members)| is_member(members)).map(|(_, gid, _)| gid));
    }
    for wanted in additional {
        supplementary.push(gid_of(wanted)?);
    }
    supplementary.push(gid);
    supplementary.sort_unstable();
    supplementary.dedup();
    let home = known.map(|user| user.home).filter(|home| home.starts_with('/')).unwrap_or("/");
    Ok(Identity { uid, gid, groups: supplementary, home: home.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/var/www:/bin/false\n1000:x:0:0::/:/bin/sh\n\nbad:x:y:z\nbig:x:4294967296:0::/:\n";
    const GROUP: &str = "root:x:0:\nadm:x:4:root,web\nwww:x:34:\nvideo:x:44:web\n";

    #[test]
    fn who() {
        let of = |spec: &str| {
            resolve(spec, &[], PASSWD, GROUP).map(|who| (who.uid, who.gid, who.groups, who.home))
        };
        assert_eq!(of("").unwrap(), (0, 0, vec![0, 4], "/root".to_owned()));
        assert_eq!(of("web").unwrap(), (33, 34, vec![4, 34, 44], "/var/www".to_owned()));
        assert_eq!(of("33").unwrap(), (33, 34, vec![4, 34, 44], "/var/www".to_owned()));
        assert_eq!(of("web:adm").unwrap(), (33, 4, vec![4], "/var/www".to_owned()));
        assert_eq!(of("1000:1000").unwrap(), (1000, 1000, vec![1000], "/".to_owned()));
        // CVE-2016-3697: a user *named* 1000 must not turn the number 1000 into root.
        assert_eq!(of("1000").unwrap(), (1000, 0, vec![0], "/".to_owned()));
        for bad in
            ["nobody", "web:", "web:none", "4294967295", "4294967296", "-1", "0:-1", "0x1", "1:99999999999"]
        {
            assert!(of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn added_groups() {
        let who = resolve("web", &["0".to_owned(), "www".to_owned()], PASSWD, GROUP).unwrap();
        assert_eq!(who.groups, [0, 4, 34, 44]);
        assert!(resolve("web", &["nope".to_owned()], PASSWD, GROUP).is_err());
    }
}
