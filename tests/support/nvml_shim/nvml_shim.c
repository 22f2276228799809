/* A libnvidia-ml.so.1 without a GPU, for tests that go through the real Python binding.
 *
 * What it tells lies in a file ($NVML_SHIM_STATE) that is mapped into every process that loads it, so a test can
 * change a device while an agent looks at it. tests/support/nvml.py has the same layout in ctypes; `layout` in the
 * header catches a difference. A function that is not defined here is absent for the binding, as in an old driver.
 *
 * gcc -shared -fPIC -Wl,-soname,libnvidia-ml.so.1 -o libnvidia-ml.so.1 nvml_shim.c
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
  SUCCESS = 0,
  UNINITIALIZED = 1,
  INVALID_ARGUMENT = 2,
  NOT_SUPPORTED = 3,
  INSUFFICIENT_SIZE = 7,
  DRIVER_NOT_LOADED = 9,
  NOT_FOUND = 6,
  ARGUMENT_VERSION_MISMATCH = 25,
  UNKNOWN = 999,
};

#define MAX_DEVICES 16
#define NVLINK_PLACES 18
#define NO_NUMA_NODE UINT32_MAX

typedef struct {
  uint64_t memory_total, memory_used;            /* bytes */
  uint32_t error;                                /* what every call on it answers; 0 while it is well */
  uint32_t numa_node, nvlinks, temperature;      /* temperature in degrees Celsius */
  uint32_t power_usage, power_limit;             /* milliwatts, as are those below */
  uint32_t power_default, power_min, power_max;
  uint32_t compute_pid;                          /* the process that computes on it; 0 for none */
  char name[96], uuid[80], pci_bus_id[32];
} device_t;

typedef struct {
  uint32_t magic, layout;                        /* layout: size of device_t */
  uint32_t init_error;                           /* what nvmlInit answers; 0 while the driver is loaded */
  uint32_t set_error;                            /* what every setter answers; 0 while they work */
  uint32_t driver_generation;                    /* another one than at nvmlInit: the driver was reloaded */
  uint32_t device_count;
  uint32_t open_sessions;                        /* nvmlInit less nvmlShutdown, over all processes */
  uint32_t spare;
  device_t device[MAX_DEVICES];
} state_t;

typedef struct {
  char legacy_bus_id[16];
  uint32_t domain, bus, device, device_id, subsystem_id;
  char bus_id[32];
} pci_info_t;

static const uint32_t MAGIC = 0x4d485356;
static state_t *state;
static unsigned sessions;
static uint32_t session_generation;

static int map_state(void) {
  const char *path = getenv("NVML_SHIM_STATE");
  int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
  if (file < 0) return DRIVER_NOT_LOADED;
  void *bytes = mmap(NULL, sizeof(state_t), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (bytes == MAP_FAILED) return UNKNOWN;
  state = bytes;
  if (state->magic == MAGIC && state->layout == sizeof(device_t)) return SUCCESS;
  munmap(bytes, sizeof(state_t));
  state = NULL;
  return UNKNOWN;
}

static int session_error(void) {
  return sessions && session_generation == state->driver_generation ? SUCCESS : UNINITIALIZED;
}

/* A handle is the address of a device in our mapping; anything else is refused. */
static int open_device(void *handle, device_t **device) {
  int error = session_error();
  if (error) return error;
  for (uint32_t i = 0; i < state->device_count && i < MAX_DEVICES; i++)
    if (handle == &state->device[i]) {
      *device = handle;
      return (int)(*device)->error;
    }
  return INVALID_ARGUMENT;
}

static int give_text(const char *text, char *out, uint32_t size) {
  if (strlen(text) >= size) return INSUFFICIENT_SIZE;
  strcpy(out, text);
  return SUCCESS;
}

#define OPEN_DEVICE                        \
  device_t *d;                             \
  int error = open_device(handle, &d);     \
  if (error) return error

#define NUMBER(function, field)            \
  int function(void *handle, uint32_t *out) { \
    OPEN_DEVICE;                           \
    *out = d->field;                       \
    return SUCCESS;                        \
  }

#define TEXT(function, field)              \
  int function(void *handle, char *out, uint32_t size) { \
    OPEN_DEVICE;                           \
    return give_text(d->field, out, size); \
  }

/* --- the library ------------------------------------------------------------------------------------------- */

int nvmlInitWithFlags(uint32_t flags) {
  (void)flags;
  int error = state ? SUCCESS : map_state();
  if (error) return error;
  if (state->init_error) return (int)state->init_error;
  session_generation = state->driver_generation;
  sessions++;
  __atomic_add_fetch(&state->open_sessions, 1, __ATOMIC_SEQ_CST);
  return SUCCESS;
}

int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

int nvmlShutdown(void) {
  if (!sessions) return UNINITIALIZED;
  sessions--;
  __atomic_sub_fetch(&state->open_sessions, 1, __ATOMIC_SEQ_CST);
  return SUCCESS;
}

const char *nvmlErrorString(int code) {
  static char words[32];
  snprintf(words, sizeof words, "shim error %d", code);
  return words;
}

/* --- discovery --------------------------------------------------------------------------------------------- */

int nvmlDeviceGetCount_v2(uint32_t *out) {
  int error = session_error();
  if (!error) *out = state->device_count;
  return error;
}

int nvmlDeviceGetHandleByIndex_v2(uint32_t index, void **out) {
  int error = session_error();
  if (error) return error;
  if (index >= state->device_count || index >= MAX_DEVICES) return INVALID_ARGUMENT;
  *out = &state->device[index];
  return (int)state->device[index].error;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **out) {
  int error = session_error();
  if (error) return error;
  for (uint32_t i = 0; i < state->device_count && i < MAX_DEVICES; i++)
    if (!strcmp(uuid, state->device[i].uuid)) return nvmlDeviceGetHandleByIndex_v2(i, out);
  return NOT_FOUND;
}

TEXT(nvmlDeviceGetName, name)
TEXT(nvmlDeviceGetUUID, uuid)

int nvmlDeviceGetPciInfo_v3(void *handle, pci_info_t *out) {
  OPEN_DEVICE;
  memset(out, 0, sizeof *out);
  sscanf(d->pci_bus_id, "%x:%x:%x", &out->domain, &out->bus, &out->device);
  return give_text(d->pci_bus_id, out->bus_id, sizeof out->bus_id);
}

int nvmlDeviceGetMemoryInfo(void *handle, uint64_t out[3]) {
  OPEN_DEVICE;
  out[0] = d->memory_total;
  out[1] = d->memory_total - d->memory_used;
  out[2] = d->memory_used;
  return SUCCESS;
}

int nvmlDeviceGetMemoryAffinity(void *handle, uint32_t words, uint64_t *out, uint32_t scope) {
  (void)scope;
  OPEN_DEVICE;
  if (d->numa_node == NO_NUMA_NODE) return NOT_SUPPORTED;
  if (d->numa_node >= words * 64) return INSUFFICIENT_SIZE;
  memset(out, 0, words * sizeof *out);
  out[d->numa_node / 64] = 1ull << d->numa_node % 64;
  return SUCCESS;
}

int nvmlDeviceGetNvLinkState(void *handle, uint32_t link, uint32_t *out) {
  OPEN_DEVICE;
  if (link >= NVLINK_PLACES) return INVALID_ARGUMENT;
  *out = link < d->nvlinks;
  return SUCCESS;
}

/* --- readings and power limits ----------------------------------------------------------------------------- */

int nvmlDeviceGetTemperature(void *handle, uint32_t sensor, uint32_t *out) {
  OPEN_DEVICE;
  if (sensor) return INVALID_ARGUMENT;
  *out = d->temperature;
  return SUCCESS;
}

int nvmlDeviceGetTemperatureV(void *handle, uint32_t request[3]) {   /* version, sensor, answer */
  OPEN_DEVICE;
  if (request[0] != (3 * sizeof(uint32_t) | 1u << 24)) return ARGUMENT_VERSION_MISMATCH;
  return nvmlDeviceGetTemperature(handle, request[1], &request[2]);
}

typedef struct {
  uint32_t pid;
  uint64_t used_memory;
  uint32_t gpu_instance, compute_instance;
} process_t;

int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, uint32_t *count, process_t *out) {
  OPEN_DEVICE;
  uint32_t room = *count;
  *count = d->compute_pid ? 1 : 0;
  if (*count > room) return INSUFFICIENT_SIZE;
  if (*count) out[0] = (process_t){d->compute_pid, d->memory_used, UINT32_MAX, UINT32_MAX};
  return SUCCESS;
}

NUMBER(nvmlDeviceGetPowerUsage, power_usage)
NUMBER(nvmlDeviceGetPowerManagementLimit, power_limit)
NUMBER(nvmlDeviceGetEnforcedPowerLimit, power_limit)
NUMBER(nvmlDeviceGetPowerManagementDefaultLimit, power_default)

int nvmlDeviceGetPowerManagementLimitConstraints(void *handle, uint32_t *least, uint32_t *most) {
  OPEN_DEVICE;
  *least = d->power_min;
  *most = d->power_max;
  return SUCCESS;
}

int nvmlDeviceSetPowerManagementLimit(void *handle, uint32_t milliwatts) {
  OPEN_DEVICE;
  if (state->set_error) return (int)state->set_error;
  if (milliwatts < d->power_min || milliwatts > d->power_max) return INVALID_ARGUMENT;
  d->power_limit = milliwatts;
  return SUCCESS;
}
