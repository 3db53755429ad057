# What the drivers of virtio devices over PCI have in common. r15 stays the address of the function; whoever includes this has
# `bad`, which exits with al, and for what is listed at a capability r14, r13 and so on by its own choice.

# The function with this device and vendor in slot 1 or above; 0xe0 where there is none.
        .macro  find_virtio id
        movl    $0x80000800, %r15d
1:      xorl    %ecx, %ecx
        call    config
        cmpl    $\id, %eax
        je      2f
        addl    $0x800, %r15d
        cmpl    $0x80010000, %r15d
        jb      1b
        movb    $0xe0, %al
        jmp     bad
2:
        .endm

# Virtio 1.2, 3.1.1, with the common configuration at r14: a reset, then VIRTIO_F_VERSION_1 and nothing else; 0xe2 where that is refused.
        .macro  begin_virtio
        movb    $0, 0x14(%r14)
1:      cmpb    $0, 0x14(%r14)
        jne     1b
        movb    $1, 0x14(%r14)
        movb    $3, 0x14(%r14)
        movl    $1, 8(%r14)
        movl    $1, 0x0c(%r14)
        movl    $0, 8(%r14)
        movl    $0, 0x0c(%r14)
        movb    $0x0b, 0x14(%r14)
        cmpb    $0x0b, 0x14(%r14)
        movb    $0xe2, %al
        jne     bad
        .endm

# For drivers that only look: memory access and bus mastering on; r14 common configuration, r13 notify, r12 its multiplier. 0xe1 where
# one is missing.
        .macro  find_structures
        # The list of capabilities: ebx is at one of them.
        movl    $0x34, %ecx
        call    config
        movzbl  %al, %ebx
1:      testl   %ebx, %ebx
        jz      3f
        movl    %ebx, %ecx
        call    config
        movl    %eax, %edi
        cmpb    $0x09, %al
        jne     2f
        call    place
        shrl    $24, %edi
        cmpb    $1, %dil
        cmoveq  %rax, %r14
        cmpb    $2, %dil
        jne     2f
        movq    %rax, %r13
        leal    16(%ebx), %ecx
        call    config
        movl    %eax, %r12d
2:      movl    %ebx, %ecx
        call    config
        movzbl  %ah, %ebx
        jmp     1b
3:      movb    $0xe1, %al
        testq   %r14, %r14
        jz      bad
        testq   %r13, %r13
        jz      bad
        movl    $6, %esi
        call    command
        .endm

# Where queues of such drivers stand, one after the other: descriptors, then the driver's ring, then the device's.
        .set    QUEUES, 0x40000
        .set    DRIVER, 0x1000
        .set    DEVICE, 0x2000
        .set    QUEUE_BYTES, 0x3000

        .macro  queue_routines
        # Queue eax of 8 entries at edi; its one descriptor has address ecx and, in edx, length and flags (16 bits each).
queue:  movw    %ax, 0x16(%r14)
        movw    $8, 0x18(%r14)
        movw    $0xffff, 0x1a(%r14)
        movl    %edi, 0x20(%r14)
        movl    $0, 0x24(%r14)
        leal    DRIVER(%rdi), %eax
        movl    %eax, 0x28(%r14)
        movl    $0, 0x2c(%r14)
        leal    DEVICE(%rdi), %eax
        movl    %eax, 0x30(%r14)
        movl    $0, 0x34(%r14)
        movq    %rcx, (%rdi)
        movzwl  %dx, %eax
        movl    %eax, 8(%rdi)
        shrl    $16, %edx
        movl    %edx, 12(%rdi)
        # No interrupts, please (VIRTQ_AVAIL_F_NO_INTERRUPT).
        movw    $1, DRIVER(%rdi)
        movw    $1, 0x1c(%r14)
        ret
        # Descriptor 0 of queue eax is the device's once more.
give:   movl    %eax, %esi
        imull   $QUEUE_BYTES, %eax, %edi
        incw    QUEUES + DRIVER + 2(%rdi)
        movw    %si, 0x16(%r14)
        movzwl  0x1e(%r14), %eax
        imull   %r12d, %eax
        movw    %si, (%r13,%rax)
        ret
        .endm

        .macro  pci_routines
        # eax: the word of configuration space at ecx; dx is left at the port of data.
config: movw    $0xcf8, %dx
        movl    %r15d, %eax
        orl     %ecx, %eax
        andl    $~3, %eax
        outl    %eax, %dx
        movw    $0xcfc, %dx
        inl     %dx, %eax
        ret
        # The command register becomes si.
command:
        movl    $4, %ecx
        call    config
        movw    %si, %ax
        outl    %eax, %dx
        ret
        # rax: where base address register eax stands.
bar:    leal    0x10(,%eax,4), %ecx
        call    config
        andl    $~15, %eax
        ret
        # rax: where the structure of the vendor capability at ebx stands.
place:  leal    4(%ebx), %ecx
        call    config
        movzbl  %al, %eax
        call    bar
        movl    %eax, %esi
        leal    8(%ebx), %ecx
        call    config
        addl    %esi, %eax
        ret
        .endm
