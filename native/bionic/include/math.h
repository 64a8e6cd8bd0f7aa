/* What the library needs of Android's libm. */
#ifndef KE_BIONIC_MATH_H_
#define KE_BIONIC_MATH_H_

#define HUGE_VALF __builtin_huge_valf()
#define INFINITY __builtin_inff()
#define NAN __builtin_nanf("")
#define isfinite(x) __builtin_isfinite(x)
#define isinf(x) __builtin_isinf(x)
#define isnan(x) __builtin_isnan(x)
#define signbit(x) __builtin_signbit(x)

double ceil(double x);
double copysign(double x, double y);
double exp(double x);
double fabs(double x);
double floor(double x);
double fma(double x, double y, double z);
double fmax(double x, double y);
double fmin(double x, double y);
double log(double x);
double nearbyint(double x);
double pow(double x, double y);
double rint(double x);
double round(double x);
double sqrt(double x);
double trunc(double x);
float ceilf(float x);
float copysignf(float x, float y);
float expf(float x);
float fabsf(float x);
float floorf(float x);
float fmaf(float x, float y, float z);
float fmaxf(float x, float y);
float fminf(float x, float y);
float logf(float x);
float nearbyintf(float x);
float rintf(float x);
float roundf(float x);
float sqrtf(float x);
float tanhf(float x);
float truncf(float x);
long lrint(double x);
long lrintf(float x);
long lround(double x);
long lroundf(float x);

#endif
