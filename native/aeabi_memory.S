// Compilers for 32-bit arm copy and clear memory through these names: each goes on to the system's own function.
    .syntax unified
    .arm
    .text

    .macro goes_to target, names:vararg
    .irp name, \names
    .globl \name
    .hidden \name
    .type \name, %function
\name:
    .endr
    b \target
    .endm

    goes_to memcpy, __aeabi_memcpy, __aeabi_memcpy4, __aeabi_memcpy8
    goes_to memmove, __aeabi_memmove, __aeabi_memmove4, __aeabi_memmove8

    // (memory, size): memset takes (memory, value, size)
    .irp name, __aeabi_memclr, __aeabi_memclr4, __aeabi_memclr8
    .globl \name
    .hidden \name
    .type \name, %function
\name:
    .endr
    mov r2, r1
    mov r1, #0
    b memset

    // (memory, size, value)
    .irp name, __aeabi_memset, __aeabi_memset4, __aeabi_memset8
    .globl \name
    .hidden \name
    .type \name, %function
\name:
    .endr
    mov r3, r1
    mov r1, r2
    mov r2, r3
    b memset

    .section .note.GNU-stack, "", %progbits
