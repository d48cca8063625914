//! The end-to-end tests: the real `dhow` command against real images, registries, terminals and signals.
//!
//! Expected output, exit codes and order of things are Docker's, observed on docker 28 with dockerd 20.10,
//! wherever Docker has the same command; the difference is in messages, which name a hint here.
//! Each file is one topic. What the tests share is in `tests/support`.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "notes for whoever reads the test's output")]

#[path = "../support/support.rs"]
mod support;

mod arrows;
mod bad_images;
mod bad_input;
mod bad_registry;
mod beside_docker;
mod build;
mod cgroup2_oci;
mod cgroup2_systemd;
mod cgroup2_wasm;
mod commit;
mod containers;
mod convert;
mod cp;
mod crash_points;
mod dependencies;
mod escape;
mod events;
mod examples;
mod exec;
mod files;
mod flags;
mod full_disk;
mod gc;
mod guests;
mod health;
mod help;
mod image_formats;
mod image_list;
mod images;
mod import_export;
mod interop;
mod layer_forms;
mod layers;
mod life;
mod limits;
mod links;
mod login;
mod logs;
mod meanwhile;
mod mount_kinds;
mod network;
mod network_names;
mod network_ports;
mod network_wasm;
mod oci;
mod oci_bad_input;
mod oci_callers;
mod oci_checkpoint;
mod oci_conformance;
mod oci_handles;
mod oci_storm;
mod oci_wasm;
mod older_kernel;
mod parents;
mod plugins;
#[cfg(target_os = "linux")]
mod plugins_native;
mod prune;
mod pull;
mod pull_shared;
mod push;
mod races;
mod registries;
mod restart;
mod rootless;
mod rootless_networks;
mod rootless_trees;
mod run_components;
mod run_http;
mod run_http_edges;
mod run_http_tls;
mod run_isolation;
mod run_kernel_files;
mod run_native;
mod run_options;
mod run_sockets;
mod run_tty;
mod run_volumes;
mod run_wasi;
mod run_wasm;
mod run_wasm_image;
mod sandbox;
mod save_load;
mod signals;
mod start_path;
mod stats_top;
mod system;
mod tls_and_proxies;
mod trees;
mod trust;
mod update;
mod volumes;
mod wall;
mod wasm_floods;
