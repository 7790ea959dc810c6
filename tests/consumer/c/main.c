/* main.c: fits a line through the C interface; then asks for what must fail. */
#include <math.h>
#include <optimisers/optimisers.h>
#include <stdio.h>
#include <string.h>

static int check(optimisers_status status) {
  if (status != OPTIMISERS_OK)
    fprintf(stderr, "%s (leaf \"%s\")\n", optimisers_last_error(), optimisers_last_error_leaf());
  return status == OPTIMISERS_OK;
}

int main(void) {
  double slope = 0, offset = 0, dslope, doffset, values[2];
  optimisers_array x[2] = {{&slope, 1, OPTIMISERS_FLOAT64, 0, NULL, "slope"},
                           {&offset, 1, OPTIMISERS_FLOAT64, 0, NULL, "offset"}};
  optimisers_array dx[2] = {{&dslope, 1, OPTIMISERS_FLOAT64, 0, NULL, NULL},
                            {&doffset, 1, OPTIMISERS_FLOAT64, 0, NULL, NULL}};
  optimisers_state* state = NULL;
  optimisers_slot m = {sizeof m, NULL, NULL, 0, 0};
  int32_t count;
  int i, k;

  if (!check(optimisers_create("OptimiserChain(ClipNorm(1.0), Adam(eta=1e-2))", x, 2, NULL, &state))) return 1;
  for (i = 0; i < 4000; ++i) {
    dslope = doffset = 0;
    for (k = 0; k < 20; ++k) {
      const double t = 0.1 * k, error = slope * t + offset - (2 * t + 1);
      dslope += error * t / 10;
      doffset += error / 10;
    }
    if (i == 3000 && !check(optimisers_adjust(state, OPTIMISERS_ALL, "eta", 1e-4))) return 1;
    if (!check(optimisers_update(state, x, 2, dx, 2))) return 1;
  }
  if (!check(optimisers_get_slot(state, 0, 1, 0, &m)) || strcmp(m.name, "m") != 0 || m.size != 1) return 1;
  if (!check(optimisers_get_field(state, 0, 1, "eta", values, &count)) || count != 1 || values[0] != 1e-4) return 1;

  dslope = HUGE_VAL;
  if (optimisers_update(state, x, 2, dx, 2) != OPTIMISERS_NON_FINITE) return 1;
  if (strcmp(optimisers_last_error_leaf(), "slope") != 0) return 1;
  printf("optimisers %s from C: %.4f t + %.4f; refused: %s\n", optimisers_version(), slope, offset,
         optimisers_last_error());
  optimisers_destroy(state);
  return fabs(slope - 2) + fabs(offset - 1) < 0.02 ? 0 : 1;
}
