/* optimisers.h: the C interface: opaque handles, pointers and sizes, status codes with a message. Guide: docs/cpp.md.
 *
 * Every function that can fail returns OPTIMISERS_OK or why not; optimisers_last_error() then has the message of this
 * thread's last failure. A call that failed has changed nothing. No function throws or keeps a pointer it was given,
 * except where it says so. One call at a time on a state (a second one gets OPTIMISERS_BUSY); different states may
 * run in parallel. */
#ifndef OPTIMISERS_OPTIMISERS_H
#define OPTIMISERS_OPTIMISERS_H
#include <stddef.h>
#include <stdint.h>

/* The shared library exports what carries this; the static one, which may be a part of a plugin, exports nothing. */
#ifndef OPTIMISERS_API
#if defined(_WIN32) && defined(OPTIMISERS_EXPORTS)
#define OPTIMISERS_API __declspec(dllexport)
#elif defined(__GNUC__) && !defined(_WIN32)
#define OPTIMISERS_API __attribute__((visibility("default")))
#else
#define OPTIMISERS_API
#endif
#endif

/* Of this header; optimisers_version() and optimisers_abi() are the library's. Programs and libraries of one ABI number
 * fit: structures a caller reads begin with `struct_size`, which it sets to sizeof of the structure as it knows it, and
 * grow at their ends only. */
#define OPTIMISERS_VERSION_MAJOR 0
#define OPTIMISERS_VERSION_MINOR 1
#define OPTIMISERS_VERSION_PATCH 0
#define OPTIMISERS_ABI 1

#ifdef __cplusplus
extern "C" {
#endif

typedef enum optimisers_status {
  OPTIMISERS_OK = 0,
  OPTIMISERS_VALUE = 1,      /* right kind of argument, wrong value: range, size, overlap, unknown name, null */
  OPTIMISERS_TYPE = 2,       /* an element type or kind of value that cannot be taken */
  OPTIMISERS_NON_FINITE = 3, /* ClipNorm met a norm that is infinite or not a number */
  OPTIMISERS_BUSY = 4,       /* the state is in use by another call */
  OPTIMISERS_MEMORY = 5,     /* out of memory */
  OPTIMISERS_DEVICE = 6,     /* an accelerator failed */
  OPTIMISERS_FILE = 7        /* the operating system refused something about a file: the message says which and why */
} optimisers_status;

typedef enum optimisers_dtype {
  OPTIMISERS_FLOAT16 = 0,
  OPTIMISERS_BFLOAT16 = 1,
  OPTIMISERS_FLOAT32 = 2,
  OPTIMISERS_FLOAT64 = 3,
  OPTIMISERS_COMPLEX64 = 4,
  OPTIMISERS_COMPLEX128 = 5
} optimisers_dtype;

/* A borrowed array of `size` elements without gaps, of any alignment. */
typedef struct optimisers_array {
  void* data; /* a gradient with NULL here is missing: its leaf is left untouched */
  int64_t size;
  int32_t dtype; /* optimisers_dtype */
  int32_t ndim;  /* of shape; 0: one axis. Name and shape are read by optimisers_create only */
  const int64_t* shape;
  const char* name; /* UTF-8; NULL: "0", "1", ... */
} optimisers_array;

typedef struct optimisers_state optimisers_state;

/* All leaves, where a leaf's index is asked for. */
#define OPTIMISERS_ALL ((int64_t)-1)

/* "0.1.0" */
OPTIMISERS_API const char* optimisers_version(void);
OPTIMISERS_API int32_t optimisers_abi(void);
/* The instruction set the kernels run on: "v2", "v3", "v4", "baseline". NULL: see optimisers_last_error. */
OPTIMISERS_API const char* optimisers_isa(void);
/* Of this thread's last failed call; valid until its next one. The leaf's name is "" if it was about no one leaf. */
OPTIMISERS_API const char* optimisers_last_error(void);
OPTIMISERS_API const char* optimisers_last_error_leaf(void);

/* Memory of the slots: `allocate` gives zeroed or other memory aligned to `alignment` (a power of two), or NULL.
 * Both are called on the thread that creates, copies or destroys the state, and are kept as long as it and its
 * copies live. */
typedef struct optimisers_memory {
  void* (*allocate)(void* self, size_t bytes, size_t alignment);
  void (*release)(void* self, void* block, size_t bytes, size_t alignment);
  void* self;
} optimisers_memory;

/* State for `count` leaves. `rule` is text: "Adam(eta=3e-4)", "OptimiserChain(ClipNorm(1.0), AdamW(lambda=0.01))",
 * "MixedPrecision(Adam())". `memory` may be NULL. */
OPTIMISERS_API optimisers_status optimisers_create(const char* rule, const optimisers_array* leaves, size_t count,
                                                   const optimisers_memory* memory, optimisers_state** out);
/* One rule a leaf; NULL: that leaf is left alone. */
OPTIMISERS_API optimisers_status optimisers_create_each(const char* const* rules, const optimisers_array* leaves,
                                                        size_t count, const optimisers_memory* memory,
                                                        optimisers_state** out);
OPTIMISERS_API optimisers_status optimisers_copy(const optimisers_state* state, optimisers_state** out);
OPTIMISERS_API void optimisers_destroy(optimisers_state* state); /* NULL is fine */

/* One step: x <- x - dx, dx being what the rules make of the gradient. Both lists have one array a leaf, or one array
 * of all leaves, one after the other, in C order. */
OPTIMISERS_API optimisers_status optimisers_update(optimisers_state* state, const optimisers_array* x, size_t x_count,
                                                   const optimisers_array* dx, size_t dx_count);

/* What is done where a gradient has elements that are infinite or not a number. */
typedef enum optimisers_non_finite {
  OPTIMISERS_PROPAGATE = 0, /* computes with them */
  OPTIMISERS_RAISE = 1,     /* OPTIMISERS_NON_FINITE, with the first such leaf */
  OPTIMISERS_SKIP = 2       /* nothing is written, clocks included: OPTIMISERS_OK, and counted in optimisers_get_seen */
} optimisers_non_finite;

/* The same with what is to be done to the gradients first. NULL options: nothing. */
typedef struct optimisers_update_options {
  size_t struct_size;
  double scale; /* gradients are multiplied by it: 1/n where n processes have summed theirs */
  /* If not NULL, asked for each norm that a stage measures, before anything is written: what it is over all processes,
   * each of which holds a part of the leaves. `leaf` is "" for a norm of all leaves together. */
  double (*reduce_norm)(void* self, double norm, double p, const char* leaf);
  void* self;
  int32_t non_finite; /* optimisers_non_finite; for anything but the first all gradients are read once */
} optimisers_update_options;
OPTIMISERS_API optimisers_status optimisers_update_with(optimisers_state* state, const optimisers_array* x,
                                                        size_t x_count, const optimisers_array* dx, size_t dx_count,
                                                        const optimisers_update_options* options);

/* Applies what AccumGrad has gathered in windows that are not full, as the mean over their calls. Where nothing is
 * held, nothing changes. */
OPTIMISERS_API optimisers_status optimisers_flush(optimisers_state* state, const optimisers_array* x, size_t x_count);

/* What was seen of the updates so far. */
typedef struct optimisers_seen {
  size_t struct_size;
  int64_t skipped; /* steps that OPTIMISERS_SKIP skipped */
  int32_t has_norm;
  double norm; /* the last that leaves shared (ClipNorm with the global scope), before clipping */
} optimisers_seen;
OPTIMISERS_API optimisers_status optimisers_get_seen(const optimisers_state* state, optimisers_seen* out);

/* The whole state to a safetensors file, which Python and C++ read as well, with parameters (as for optimisers_update)
 * unless x is NULL. What stood at the path stands there until all is on the disk. */
OPTIMISERS_API optimisers_status optimisers_save(optimisers_state* state, const char* path, const optimisers_array* x,
                                                 size_t x_count);
typedef struct optimisers_load_options {
  size_t struct_size;
  const char* const* rename; /* pairs: the beginning of names in the file, and what it is here; see docs/saving.md */
  size_t renames;            /* pairs */
  int32_t partial;           /* leaves that are not in the file stay, leaves that are not here are left out */
  int32_t cast;              /* state is converted where leaves have another dtype */
} optimisers_load_options;
/* The way back, leaf by leaf by name; parameters too unless x is NULL. Options may be NULL. */
OPTIMISERS_API optimisers_status optimisers_load(optimisers_state* state, const char* path, const optimisers_array* x,
                                                 size_t x_count, const optimisers_load_options* options);

/* Hyperparameters of one leaf or of all, in every stage that has the field. Slots and clocks stay. */
OPTIMISERS_API optimisers_status optimisers_adjust(optimisers_state* state, int64_t leaf, const char* field,
                                                   double value);
/* "eta=1e-3, beta=(0.9, 0.99), scope=\"global\"" */
OPTIMISERS_API optimisers_status optimisers_adjust_text(optimisers_state* state, int64_t leaf, const char* fields);
/* The same of one stage of one leaf. */
OPTIMISERS_API optimisers_status optimisers_adjust_stage(optimisers_state* state, int64_t leaf, int32_t stage,
                                                         const char* fields);
/* Numbers, pairs (two values), booleans (0 or 1) and scopes (0 leaf, 1 global) as doubles. */
OPTIMISERS_API optimisers_status optimisers_get_field(const optimisers_state* state, int64_t leaf, int32_t stage,
                                                      const char* field, double values[2], int32_t* count);
/* A frozen leaf: no write to its parameter, slots or clocks. */
OPTIMISERS_API optimisers_status optimisers_freeze(optimisers_state* state, int64_t leaf, int32_t frozen);

typedef struct optimisers_leaf {
  size_t struct_size;
  const char* name; /* as long as the state */
  int64_t size;
  int32_t dtype, frozen, stages, has_master;
} optimisers_leaf;
typedef struct optimisers_stage {
  size_t struct_size;
  const char* rule; /* "Adam"; for ever */
  int32_t slots, clocks, fields;
} optimisers_stage;
typedef enum optimisers_kind {
  OPTIMISERS_NUMBER = 0,
  OPTIMISERS_PAIR = 1,
  OPTIMISERS_COUNT = 2,
  OPTIMISERS_BOOLEAN = 3,
  OPTIMISERS_WORD = 4
} optimisers_kind;
typedef struct optimisers_field { /* texts live for ever */
  size_t struct_size;
  const char* name;
  const char* about;
  int32_t kind;       /* optimisers_kind */
  int32_t structural; /* decides which slots exist: cannot be adjusted */
} optimisers_field;
typedef struct optimisers_slot {
  size_t struct_size;
  const char* name; /* for ever */
  void* data;       /* writable, in the leaf's order, as long as the state */
  int64_t size;
  int32_t dtype;
} optimisers_slot;

OPTIMISERS_API int64_t optimisers_leaf_count(const optimisers_state* state);
OPTIMISERS_API optimisers_status optimisers_find_leaf(const optimisers_state* state, const char* name, int64_t* leaf);
OPTIMISERS_API optimisers_status optimisers_get_leaf(const optimisers_state* state, int64_t leaf, optimisers_leaf* out);
OPTIMISERS_API optimisers_status optimisers_get_stage(const optimisers_state* state, int64_t leaf, int32_t stage,
                                                      optimisers_stage* out);
/* The hyperparameters of a stage's rule, in order; optimisers_get_field reads their values. */
OPTIMISERS_API optimisers_status optimisers_get_field_info(const optimisers_state* state, int64_t leaf, int32_t stage,
                                                           int32_t field, optimisers_field* out);
/* The rule of a leaf with its hyperparameters now, as text that optimisers_create reads; "" for a leaf that was left
 * alone, where optimisers_create_each takes NULL. `size` is how many bytes
 * `text` has, the closing 0 included; `needed`, which may be NULL, becomes how many it takes. Too few:
 * OPTIMISERS_VALUE; text = NULL with size = 0 only asks. */
OPTIMISERS_API optimisers_status optimisers_get_rule(const optimisers_state* state, int64_t leaf, char* text,
                                                     size_t size, size_t* needed);
/* Read and write state: per-element arrays, the master copy of MixedPrecision, and the scalars of a rule's clock. */
OPTIMISERS_API optimisers_status optimisers_get_slot(const optimisers_state* state, int64_t leaf, int32_t stage,
                                                     int32_t slot, optimisers_slot* out);
OPTIMISERS_API optimisers_status optimisers_get_master(const optimisers_state* state, int64_t leaf,
                                                       optimisers_slot* out);
OPTIMISERS_API optimisers_status optimisers_get_clock(const optimisers_state* state, int64_t leaf, int32_t stage,
                                                      int32_t clock, const char** name, double* value);
OPTIMISERS_API optimisers_status optimisers_set_clock(optimisers_state* state, int64_t leaf, int32_t stage,
                                                      int32_t clock, double value);

/* Threads of the whole process, 1 to 1024. Where the system has fewer left, those do the work. A thread that makes a
 * call, or runs a part for the library, needs 96 KiB of stack. */
OPTIMISERS_API optimisers_status optimisers_set_num_threads(int32_t threads);
OPTIMISERS_API int32_t optimisers_get_num_threads(void);
/* Ends them, once no call needs them; the next one with work for several starts new ones. A plugin that is unloaded
 * does this by itself. */
OPTIMISERS_API void optimisers_shutdown_threads(void);
/* The host's own threads: run() calls part(context, i) for i = 0 .. parts-1, each once, on any threads, and returns
 * when all have returned. run = NULL: the library's pool again. */
typedef void (*optimisers_part)(void* context, int index);
typedef void (*optimisers_run)(void* self, int parts, optimisers_part part, void* context);
OPTIMISERS_API optimisers_status optimisers_set_executor(optimisers_run run, void* self, int32_t threads);

#ifdef __cplusplus
}
#endif
#endif
