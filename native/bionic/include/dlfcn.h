/* Loading libraries on Android. The modes have other values on 32-bit devices than anywhere else. */
#ifndef KE_BIONIC_DLFCN_H_
#define KE_BIONIC_DLFCN_H_

#if defined(__LP64__)
#define RTLD_LAZY 1
#define RTLD_NOW 2
#define RTLD_GLOBAL 0x100
#else
#define RTLD_NOW 0
#define RTLD_LAZY 1
#define RTLD_GLOBAL 2
#endif
#define RTLD_LOCAL 0

void *dlopen(const char *path, int mode);
void *dlsym(void *library, const char *name);
char *dlerror(void);
int dlclose(void *library);

#endif
