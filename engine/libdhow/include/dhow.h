/*
 * Plugins of Dhow for host applications in C: docs/plugins.md.
 *
 * Every function may be called from every thread, also at the same time with the same objects, unless it frees one. A null
 * pointer where an object is expected is an error, or does nothing where there is no way to say so; every other pointer must be
 * valid. Texts are UTF-8 and end with a zero. Where a function takes `error`, that may be null; otherwise what failed is put
 * there, to be freed with dhow_error_free.
 */

#ifndef DHOW_H
#define DHOW_H

/* Made by cbindgen: engine/libdhow/build header. */

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

// What kind of failure it is. Later versions may have more.
typedef enum {
  // None: what `dhow_error_kind` says of null.
  DHOW_KIND_NONE = 0,
  // The call took longer than it may.
  DHOW_KIND_DEADLINE = 1,
  // The host gave the call up.
  DHOW_KIND_CANCELLED = 2,
  // The instance wanted more memory than it may have.
  DHOW_KIND_OUT_OF_MEMORY = 3,
  // The call needed more instructions than it may.
  DHOW_KIND_OUT_OF_FUEL = 4,
  // The plugin did what no program may. Details: `backtrace`.
  DHOW_KIND_TRAP = 5,
  // The plugin used what it was not granted. Details: `capability`.
  DHOW_KIND_DENIED = 6,
  // The plugin's own answer is an error. Details: `value`.
  DHOW_KIND_GUEST = 7,
  // Types differ. Details: `what`, `expected`, `found`.
  DHOW_KIND_INCOMPATIBLE = 8,
  // There is no such function. Details: `has`.
  DHOW_KIND_NO_FUNCTION = 9,
  // A function of the host failed.
  DHOW_KIND_HOST = 10,
  // A function of the host, or this library, panicked.
  DHOW_KIND_PANIC = 11,
  // There are as many instances as there can be.
  DHOW_KIND_BUSY = 12,
  // It has failed and is left alone for a while. Details: `milliseconds`.
  DHOW_KIND_RESTING = 13,
  // The code cannot be read, compiled or linked.
  DHOW_KIND_LOAD = 14,
  // The image is not there, or not trusted.
  DHOW_KIND_IMAGE = 15,
  // This library was used wrongly: a null pointer, settings that are none.
  DHOW_KIND_USAGE = 16,
} dhow_kind;

// A function that takes bytes and gives bytes: `func(list<u8>) -> list<u8>`.
typedef struct dhow_bytes_function dhow_bytes_function;

// Gives calls up from another thread.
typedef struct dhow_cancel_handle dhow_cancel_handle;

// A failure.
typedef struct dhow_error dhow_error;

// Where plugins live.
typedef struct dhow_host dhow_host;

// A plugin that is about to be loaded. It may do nothing until it is told otherwise.
typedef struct dhow_loader dhow_loader;

// A loaded plugin.
typedef struct dhow_plugin dhow_plugin;

// What an asynchronous function of the host answers with.
typedef struct dhow_reply_handle dhow_reply_handle;

// Bytes of ours that the host holds, to be freed by `dhow_buffer_free`. Behind the last one is a zero, so that a text can
// be used as one of C. `{0}` is an empty one.
typedef struct {
  // The first byte; null if there is nothing.
  uint8_t *data;
  // How many there are, without the zero.
  size_t length;
} dhow_buffer;

// What is special about one call. `{0}` is nothing.
typedef struct {
  // Nanoseconds that it may take, in the place of the plugin's own deadline; 0 for that one.
  uint64_t deadline;
  // Gives it up; may be null.
  const dhow_cancel_handle *cancel;
  // Bytes of memory that the instance may grow to, if that is less than the plugin's own limit; 0 for that one.
  uint64_t memory;
  // Fuel that it may use, in the place of the plugin's own limit, which has to be there; 0 for that one.
  uint64_t fuel;
  // Bytes that it may hand over at a time, in the place of the plugin's own limit; 0 for that one.
  size_t output;
} dhow_call_options;

// A function of the host: gets its arguments as a JSON array, and puts its answer into `answer` by `dhow_buffer_set`, as JSON
// (nothing for none). Other than 0 is a failure, and the answer says why. It may be called from every thread that calls
// plugins, at the same time.
typedef int (*dhow_host_function)(void *data, const char *arguments, dhow_buffer *answer);

// Frees what a function was given as its data, when nobody needs it any more.
typedef void (*dhow_release)(void *data);

// Takes what a plugin writes to its output, piece by piece, from whichever thread calls it.
typedef void (*dhow_sink)(void *data, const uint8_t *bytes, size_t length);

// Is told of each span that has ended, from the thread in which it did, by a JSON object: `span` is `plugin.load` or `plugin.call`,
// `plugin` and `function` say whose, `nanoseconds` how long it took, `error` how it failed, and `within` is the span around it.
typedef void (*dhow_trace_sink)(void *data, const char *span);

// Is told how a call has ended, once, from a thread of this library: `error` is null and `answer` has what
// `dhow_plugin_call` would have put there, or `error` says why not. Both have to be freed. It should not take long: other calls
// wait for it.
typedef void (*dhow_done)(void *data, dhow_buffer answer, dhow_error *error);

// A function of the host that answers later: gets its arguments as a JSON array, which are there until it returns, and what it has
// to answer with by `dhow_reply`, once, from any thread. It should not take long itself.
typedef void (*dhow_host_function_async)(void *data, const char *arguments, dhow_reply_handle *reply);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Frees what a function of this library has put into a buffer. It is empty afterwards, so a second time does nothing.
void dhow_buffer_free(dhow_buffer *buffer);

// Fills a buffer with a copy of these bytes: for the answer of a function of the host. What was in it is freed.
void dhow_buffer_set(dhow_buffer *buffer,
                     const uint8_t *data,
                     size_t length);

// Calls a function, `name` or `interface#name`, with a JSON array of its arguments (null for none), and puts its answer as JSON
// into `answer`, which has to be freed: `null` where it gives nothing, of a `result` what is `ok`. Which JSON stands for
// which type is in docs/plugins.md. `options` may be null. False when it fails.
bool dhow_plugin_call(const dhow_plugin *plugin,
                      const char *name,
                      const char *arguments,
                      const dhow_call_options *options,
                      dhow_buffer *answer,
                      dhow_error **error);

// Finds a function that takes bytes and gives bytes (`list<u8>`), whose calls cost much less than those by JSON.
dhow_bytes_function *dhow_plugin_bytes(const dhow_plugin *plugin,
                                       const char *name,
                                       dhow_error **error);

// Calls such a function. The answer has to be freed. False when it fails.
bool dhow_bytes_call(const dhow_bytes_function *function,
                     const uint8_t *data,
                     size_t length,
                     const dhow_call_options *options,
                     dhow_buffer *answer,
                     dhow_error **error);

// Frees such a function; the plugin stays.
void dhow_bytes_free(dhow_bytes_function *function);

// Something that gives calls up.
dhow_cancel_handle *dhow_cancel_new(void);

// Gives all calls up that it was passed to, those to come, too.
void dhow_cancel(const dhow_cancel_handle *cancel);

// Frees it; calls that are under way go on.
void dhow_cancel_free(dhow_cancel_handle *cancel);

// What kind of failure it is.
dhow_kind dhow_error_kind(const dhow_error *error);

// What has failed, in English.
dhow_buffer dhow_error_message(const dhow_error *error);

// What else is known of it: a JSON object whose fields depend on the kind.
dhow_buffer dhow_error_details(const dhow_error *error);

// Frees an error.
void dhow_error_free(dhow_error *error);

// The version of this library, such as `1.2.3`.
const char *dhow_version(void);

// Sets up a host; null when that fails. `settings` is a JSON object, or null for none:
//
// ```json
// {"store": "/var/lib/dhow", "cache": "/var/cache/app", "scratch": "/run/app/empty", "instances": 1000, "ceiling": {},
//  "policy": "/etc/dhow/policy.json"}
// ```
//
// `store` is Dhow's data folder, for images. `cache` is where compiled code is kept (the store's own place if there is a
// store). `scratch` is an empty folder that becomes the root of plugins with directories. `instances` is how many there
// can be at a time. `ceiling` is what no plugin gets more than, in the form of `grants` at `dhow_loader_set`.
// `policy` is a policy of signatures (docs/trust.md), which images have to fulfil.
dhow_host *dhow_host_new(const char *settings,
                         dhow_error **error);

// Frees a host. Its plugins live on until they are freed.
void dhow_host_free(dhow_host *host);

// A plugin from a file, binary or text.
dhow_loader *dhow_loader_file(const dhow_host *host, const char *path, dhow_error **error);

// A plugin from its code, binary or text, which is copied.
dhow_loader *dhow_loader_bytes(const dhow_host *host,
                               const uint8_t *data,
                               size_t length,
                               dhow_error **error);

// A plugin from an image of the host's store: `acme/filter:1`, `acme/filter@sha256:...`. Nothing is pulled.
dhow_loader *dhow_loader_image(const dhow_host *host,
                               const char *reference,
                               dhow_error **error);

// Says what the plugin may do, by a JSON object. All of it may be missing:
//
// ```json
// {"name": "filter",
//  "grants": {"clocks": true, "random": true, "output": true, "env": {"MODE": "fast"}, "kv": 65536,
//             "directories": [{"path": "/srv/data", "name": "/data", "write": false}],
//             "network": ["api.example.com:443"]},
//  "requested": {},
//  "limits": {"memory": 67108864, "deadline": "50ms", "fuel": 1000000, "output": 1048576},
//  "pool": {"size": 8, "calls": 1000, "idle": "1m"},
//  "rest_after_failure": {"first": "100ms", "most": "10s"}}
// ```
//
// Times are texts like these, or seconds. False when it fails; nothing has changed then.
bool dhow_loader_set(const dhow_loader *loader, const char *settings, dhow_error **error);

// Gives the plugin a function of the host: `name` of an interface, or of none where that is null. `release` (or null) is
// called with `data` when the plugin is gone, also when this fails.
bool dhow_loader_function(const dhow_loader *loader,
                          const char *interface,
                          const char *name,
                          dhow_host_function function,
                          void *data,
                          dhow_release release,
                          dhow_error **error);

// Where the plugin's output goes, if it is granted.
bool dhow_loader_output(const dhow_loader *loader,
                        dhow_sink sink,
                        void *data,
                        dhow_release release,
                        dhow_error **error);

// Loads the plugin: null when that fails. The loader is used up either way, and still has to be freed.
dhow_plugin *dhow_loader_load(const dhow_loader *loader,
                              dhow_error **error);

// Frees a loader.
void dhow_loader_free(dhow_loader *loader);

// A plugin of the host's store that runs in a process of its own, by its name: WebAssembly or a native program that `dhow plugin
// run` keeps. Values are checked against its types here. It cannot be reloaded from here, its bytes cross as JSON, and
// what it remembers is not told. Linux only.
dhow_plugin *dhow_plugin_connect(const dhow_host *host,
                                 const char *name,
                                 dhow_error **error);

// Its functions: a JSON array of objects with `name` and `type`.
dhow_buffer dhow_plugin_functions(const dhow_plugin *plugin);

// What has happened to it since it was loaded: a JSON object of counts; times are in nanoseconds.
dhow_buffer dhow_plugin_stats(const dhow_plugin *plugin);

// Replaces its code by that of a file. Calls that are under way end with the old one; when this fails the old one stays.
bool dhow_plugin_reload_file(const dhow_plugin *plugin,
                             const char *path,
                             dhow_error **error);

// As `dhow_plugin_reload_file`, with the code itself.
bool dhow_plugin_reload_bytes(const dhow_plugin *plugin,
                              const uint8_t *data,
                              size_t length,
                              dhow_error **error);

// Gives a plugin of an image the code that its reference means now; `changed` (or null) says whether that was another one.
bool dhow_plugin_refresh(const dhow_plugin *plugin,
                         bool *changed,
                         dhow_error **error);

// What the plugin remembers under a key: 1 and the value, 0 for nothing, -1 when it fails.
int32_t dhow_kv_get(const dhow_plugin *plugin,
                    const char *key,
                    dhow_buffer *value,
                    dhow_error **error);

// Makes the plugin remember a value: 1, or 0 when there is no room for it, or -1 when it fails.
int32_t dhow_kv_set(const dhow_plugin *plugin,
                    const char *key,
                    const uint8_t *data,
                    size_t length,
                    dhow_error **error);

// Makes the plugin forget a key: 1, or 0 when there was none, or -1 when it fails.
int32_t dhow_kv_delete(const dhow_plugin *plugin, const char *key, dhow_error **error);

// Frees a plugin. Calls that are under way have to have ended.
void dhow_plugin_free(dhow_plugin *plugin);

// From now on `trace` is told of what all hosts of this process do with their plugins. It can be said once; until then
// spans cost nothing.
bool dhow_trace(dhow_trace_sink trace,
                void *data,
                dhow_error **error);

// As `dhow_plugin_call`, without waiting for the answer: `done` is told. It is called exactly once if this gives true, and
// otherwise never. The plugin may be freed meanwhile; what `options` names as well.
bool dhow_plugin_call_async(const dhow_plugin *plugin,
                            const char *name,
                            const char *arguments,
                            const dhow_call_options *options,
                            dhow_done done,
                            void *data,
                            dhow_error **error);

// As `dhow_loader_function`, for a function that answers later. While it waits no thread does; the call's deadline and its
// cancellation hold, and a reply that comes after them goes nowhere.
bool dhow_loader_function_async(const dhow_loader *loader,
                                const char *interface,
                                const char *name,
                                dhow_host_function_async function,
                                void *data,
                                dhow_release release,
                                dhow_error **error);

// Answers a call of an asynchronous function of the host, and frees the reply: with JSON (nothing for none), or where `failed`
// with a text that says why.
void dhow_reply(dhow_reply_handle *reply,
                bool failed,
                const uint8_t *data,
                size_t length);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* DHOW_H */
