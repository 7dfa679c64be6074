/* The part of NVIDIA's driver that the Mosaic GPU compiler asks before and after it compiles: a Hopper GPU that accepts
   every module and says how much shared memory its kernels ask for. Nothing can run on it. */
#include <stdio.h>

enum { SUCCESS = 0, ATTRIBUTE_MAJOR = 75, ATTRIBUTE_MINOR = 76, FUNCTION_SHARED_BYTES = 8 };

int cuInit(unsigned flags) { return SUCCESS; }
int cuCtxGetDevice(int *device) { return *device = 0, SUCCESS; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  *value = attribute == ATTRIBUTE_MAJOR ? 9 : 0;
  return SUCCESS;
}
int cuModuleLoadData(void **module, const void *image) { return *module = (void *)1, SUCCESS; }
int cuModuleGetFunction(void **function, void *module, const char *name) { return *function = (void *)1, SUCCESS; }
int cuFuncSetAttribute(void *function, int attribute, int value) {
  if (attribute == FUNCTION_SHARED_BYTES) fprintf(stderr, "shared memory: %d bytes\n", value);
  return SUCCESS;
}
int cuGetErrorName(int error, const char **text) { return *text = "error of the stub", SUCCESS; }
int cuGetErrorString(int error, const char **text) { return *text = "error of the stub", SUCCESS; }
