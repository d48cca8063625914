//! The control group in which a native container stands still (Linux): its own, or one that is made when it is paused.

use dhow_runtime::cgroup::Group as Small;

use super::group::{Group, add_all, find};
use crate::engine::Engine;
use crate::error::Result;
use crate::record::Container;

/// Stops all processes of a container where they are.
///
/// # Errors
/// When this host has no control group for that.
pub(crate) fn freeze(engine: &Engine, container: &Container) -> Result<()> {
    if let Some(Group::Whole(group)) = find(engine, &container.record) {
        return Ok(group.freeze()?);
    }
    let group = Small::to_freeze(&engine.group_name(&container.record.id)?)?;
    container.mark_frozen()?;
    // Whoever comes into it stands still, so that the search has an end.
    group.freeze()?;
    let mut group = Group::Small(group);
    add_all(&mut group, container);
    match group {
        Group::Small(group) => Ok(group.freeze()?),
        Group::Whole(_) => Ok(()),
    }
}

/// Lets a container go on, if it was stopped.
pub(crate) fn thaw(engine: &Engine, container: &Container) -> Result<()> {
    if let Some(Group::Whole(group)) = find(engine, &container.record) {
        return Ok(group.thaw()?);
    }
    match Small::find(&engine.group_name(&container.record.id)?) {
        Some(group) => Ok(group.thaw()?),
        None => Ok(()),
    }
}

/// Removes the control group in which a container was once paused.
pub(crate) fn end_frozen(engine: &Engine, container: &Container) {
    if container.unmark_frozen()
        && let Ok(name) = engine.group_name(&container.record.id)
        && let Some(group) = Small::find(&name)
    {
        // What cannot be removed is found by `system check`.
        group.remove().ok();
    }
}
