/* What the kernel says of the processor. */
#ifndef KE_BIONIC_SYS_AUXV_H_
#define KE_BIONIC_SYS_AUXV_H_

#define AT_HWCAP 16
#define AT_HWCAP2 26

unsigned long getauxval(unsigned long type);

#endif
