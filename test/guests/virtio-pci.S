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
