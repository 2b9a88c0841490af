"""rules: ask the rules of a hook about a packet, and remember flows that none of them matches.

Stage 6 of 8:  device driver irq napi netif [nf] proto sock
In       packets on their way             netif/_core.pyx, proto/_arp.pyx, proto/_ip.pyx, proto/_ip_output.pyx
Out      a verdict
Context  softirq or process; no GIL; never allocates, never raises
Kernel   nft_do_chain(), net/netfilter/nf_tables_core.c

A chain is an array that is never changed: a new one is published in its place, and the old one freed when nobody reads
it any more. As long as the rules of a chain look at nothing but a packet's flow, a CPU writes down which flows matched
none of them, and asks again only when rules have changed.

Programs of the ingress and the ARP chains see the frame from its Ethernet header on, the others the IP packet. ``len``
is the packet's length as Linux has it at the hook: with the Ethernet header at ARP output, else without.
"""

cimport cython
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from netstack._abi cimport (
    add_relaxed64, cpu_relax, fetch_add32, get_be16, get_be32, likely, load_acquire32, load_acquire_ptr, load_relaxed32,
    load_relaxed64, put_be16, store_relaxed32, store_release32, store_release_ptr, unlikely,
)
from netstack._counters cimport SKB_DROP_REASON_NETFILTER_DROP
from netstack._net cimport (
    ETH_ALEN, ETH_HLEN, NF_TAP_SHIFT, SLOT_CPU0, SLOT_PROCESS, STAGE_PREROUTING, Net, net_device,
)
from netstack._skb cimport SkBuff, kfree_skb_reason, skb_headlen, skb_mac_header, skb_network_header

from netstack.errors import InternalError

cdef enum:
    NF_INET_FORWARD = 2            # see nf/hooks.py
    IP_HLEN = 20
    IPPROTO_TCP = 6
    IPPROTO_UDP = 17
    ETH_P_IP = 0x0800
    NF_FRAME_HOOKS = 1 << 5 | 1 << 6 | 1 << 7      # NF_INET_INGRESS, NF_ARP_IN, NF_ARP_OUT
    NF_FRAME = 128                 # of a frame with stacked tags, what rules can see

cdef struct nf_view:               # what programs are shown of a packet
    const u8 *data
    u32 len                        # skb->len
    u32 headlen                    # bytes at data
    u8 frame[NF_FRAME]


cdef void nf_frame(const sk_buff *skb, nf_view *view) noexcept nogil:
    """Show the frame from its Ethernet header on; its copy without the tags where some stand in between."""
    cdef const u8 *start = skb_network_header(skb) - ETH_HLEN
    cdef const u8 *mac = skb_mac_header(skb)
    view.headlen = <u32>(skb.data + skb_headlen(skb) - start)
    if likely(mac == start):
        view.data = start
        return
    view.headlen = min(view.headlen, <u32>NF_FRAME)
    memset(view.frame, 0, 2 * ETH_ALEN)
    if mac < start:
        memcpy(view.frame, mac, 2 * ETH_ALEN)
    put_be16(view.frame + 2 * ETH_ALEN, skb.protocol)
    memcpy(view.frame + ETH_HLEN, start + ETH_HLEN, view.headlen - ETH_HLEN)
    view.data = view.frame


cdef inline void nf_look(const sk_buff *skb, bint frame, nf_view *view) noexcept nogil:
    view.len = skb.len
    if unlikely(frame):
        nf_frame(skb, view)
    else:
        view.data = skb.data
        view.headlen = skb_headlen(skb)


cdef inline bint nf_match(const nf_rule *rule, const nf_view *view, u32 iif, u32 oif) noexcept nogil:
    if (rule.iif and rule.iif != iif) or (rule.oif and rule.oif != oif):
        return False
    return rule.program == NULL or rule.run(rule.program, view.data, view.len, view.headlen) != 0


cdef u32 nf_walk(const nf_chain *chain, const nf_view *view, u32 iif, u32 oif, bint *matched) noexcept nogil:
    """Ask one rule after the other, until one decides. [nft_do_chain()]"""
    cdef const nf_rule *rule
    cdef u32 i
    for i in range(chain.count):
        rule = &chain.rule[i]
        if not nf_match(rule, view, iif, oif):
            continue
        matched[0] = True
        if rule.counter != NULL:
            add_relaxed64(&rule.counter.packets, 1)
            add_relaxed64(&rule.counter.bytes, view.len)
        if rule.verdict != NFT_CONTINUE:
            return rule.verdict
    return chain.policy


cdef nf_flow *nf_flow_of(nf_state *state, const sk_buff *skb, u32 iif, u32 generation) noexcept nogil:
    """Find a CPU's place for the packet's flow, cleared if it was another's; NULL when the flow can't be told."""
    cdef const u8 *iph = skb.data
    cdef nf_flow *flow
    cdef u32 saddr, daddr, ports
    if (skb_headlen(skb) < IP_HLEN + 4 or iph[0] != 0x45 or get_be16(iph + 6) & 0x3FFF
            or skb.protocol != ETH_P_IP):
        return NULL
    saddr, daddr = get_be32(iph + 12), get_be32(iph + 16)
    # Of what has no ports, type and code.
    ports = get_be32(iph + 20) if iph[9] == IPPROTO_UDP or iph[9] == IPPROTO_TCP else get_be16(iph + 20)
    flow = &state.flows[skb.slot - SLOT_CPU0][((saddr ^ daddr ^ ports) * <u32>0x9E3779B1 >> 24) % NF_FLOWS]
    if unlikely(flow.saddr != saddr or flow.daddr != daddr or flow.ports != ports or flow.iif != iif
                or flow.protocol != iph[9] or flow.generation != generation):
        flow.saddr, flow.daddr, flow.ports = saddr, daddr, ports
        flow.iif, flow.protocol, flow.generation = iif, iph[9], generation
        flow.clean = 0
    return flow


cdef u32 nf_rules_run(net *n, u32 hook, sk_buff *skb, u32 iif, u32 oif) noexcept nogil:
    cdef nf_state *state = <nf_state *>n.nf
    cdef const nf_chain *chain
    cdef nf_flow *flow = NULL
    cdef bint matched = False
    cdef bint process = skb.slot == SLOT_PROCESS
    cdef u32 verdict = NF_ACCEPT
    cdef u32 generation
    cdef nf_view view
    if process:
        fetch_add32(&state.readers, 1)
    generation = load_acquire32(&state.generation)     # before the chain: a change between the two costs a look more
    chain = <nf_chain *>load_acquire_ptr(<void **>&state.chain[hook])
    if chain != NULL:
        if chain.by_flow and not process:
            flow = nf_flow_of(state, skb, iif, generation)
        if likely(flow != NULL and flow.clean >> hook & 1):
            return chain.policy
        nf_look(skb, NF_FRAME_HOOKS >> hook & 1, &view)
        verdict = nf_walk(chain, &view, iif, oif, &matched)
        if flow != NULL and not matched:
            flow.clean |= <u32>1 << hook
    if process:
        fetch_add32(&state.readers, <u32>-1)
    return verdict


cdef void nf_tap(net *n, u32 hook, sk_buff *skb, u32 iif) noexcept nogil:
    """Show a packet to those who capture at a hook; at FORWARD it is the device's it came in by, as in Linux."""
    cdef net_device *dev = skb.dev
    if hook == <u32>NF_INET_FORWARD and iif:
        skb.dev = n.devices[iif - 1]
    n.tap_stage(n, skb, STAGE_PREROUTING + hook, 0)
    skb.dev = dev


cdef bint nf_rules_pass(net *n, u32 first, u32 end, sk_buff *skb, u32 iif, u32 oif) noexcept nogil:
    cdef u32 hook
    for hook in range(first, end):
        if load_relaxed32(&n.nf_rules) >> (NF_TAP_SHIFT + hook) & 1:
            nf_tap(n, hook, skb, iif)
        if load_relaxed32(&n.nf_rules) >> hook & 1 and nf_rules_run(n, hook, skb, iif, oif) != NF_ACCEPT:
            kfree_skb_reason(skb, SKB_DROP_REASON_NETFILTER_DROP)
            return False
    return True


cdef bint nf_python_wants(net *n, u32 mask, sk_buff *skb) noexcept nogil:
    cdef nf_state *state = <nf_state *>n.nf
    cdef const nf_chain *want
    cdef bint found = False
    cdef u32 i
    cdef nf_view view
    if state == NULL:
        return True
    nf_look(skb, mask & NF_FRAME_HOOKS != 0, &view)
    fetch_add32(&state.readers, 1)
    want = <nf_chain *>load_acquire_ptr(<void **>&state.want)
    if want == NULL:
        found = True
    else:
        for i in range(want.count):
            if want.rule[i].verdict & mask and nf_match(&want.rule[i], &view, 0, 0):
                found = True
                break
    fetch_add32(&state.readers, <u32>-1)
    return found


# ---- set-up

@cython.final
cdef class Counter:
    """Packets and bytes that a rule has matched. It lives as long as a table that counts in it."""
    cdef nf_counter c

    @property
    def packets(self):
        """How many packets."""
        return load_relaxed64(&self.c.packets)

    @property
    def bytes(self):
        """How many bytes, IP header included."""
        return load_relaxed64(&self.c.bytes)


@cython.final
@cython.no_gc_clear
cdef class Rules:
    """The chains of a host as the data path reads them. Owns ``net.nf``; keep it as long as packets move."""
    cdef Net net_object
    cdef nf_state *state
    cdef dict kept                 # what the published rules point to, by hook

    def __cinit__(self, Net n not None):
        if n.ptr.nf != NULL:
            raise InternalError("the host has its rules already")
        self.state = <nf_state *>calloc(1, sizeof(nf_state))
        if self.state == NULL:
            raise MemoryError
        self.net_object = n
        self.kept = {}
        n.ptr.nf = self.state

    def __dealloc__(self):
        cdef u32 hook
        if self.state == NULL:
            return
        self.net_object.ptr.nf = NULL
        for hook in range(NF_NR_CHAINS):
            free(self.state.chain[hook])
        free(self.state.want)
        free(self.state)

    cdef nf_chain *build(self, list rules, u32 policy, bint by_flow) except NULL:
        cdef nf_chain *chain = <nf_chain *>calloc(1, sizeof(nf_chain) + len(rules) * sizeof(nf_rule))
        cdef nf_rule *rule
        cdef uintptr_t run, program
        if chain == NULL:
            raise MemoryError
        chain.policy, chain.by_flow = policy, by_flow
        for run, program, iif, oif, verdict, counter in rules:
            rule = &chain.rule[chain.count]
            rule.run, rule.program = <bpf_fn>run, <const void *>program
            rule.iif, rule.oif, rule.verdict = iif, oif, verdict
            if counter is not None:
                rule.counter = &(<Counter>counter).c
            chain.count += 1
        return chain

    cdef void replace(self, nf_chain **place, nf_chain *new) noexcept:
        """Publish, and free the old one when nobody reads it. [nf_tables_commit(), synchronize_rcu()]"""
        cdef net *n = self.net_object.ptr
        cdef nf_chain *old = place[0]
        store_release_ptr(<void **>place, new)
        store_release32(&self.state.generation, self.state.generation + 1)
        with nogil:
            if n.synchronize != NULL:
                n.synchronize(n)
            while load_acquire32(&self.state.readers):
                cpu_relax()
        free(old)

    def publish(self, u32 hook, rules, u32 policy=NF_ACCEPT, bint by_flow=False):
        """Replace the rules of a hook: (bpf function, program, iif, oif, verdict, Counter or None) each.

        ``by_flow``: no rule looks at more than addresses, ports, protocol and input device. The caller keeps the
        programs alive until the rules are replaced. Returns when nobody reads the old ones any more.
        """
        cdef list rows = list(rules)
        cdef net *n = self.net_object.ptr
        cdef nf_chain *new = NULL
        if hook >= NF_NR_CHAINS:
            raise ValueError(f"hook={hook}: give 0 to {NF_NR_CHAINS - 1}")
        if rows or policy != NF_ACCEPT:
            new = self.build(rows, policy, by_flow)
        if new == NULL:
            store_relaxed32(&n.nf_rules, n.nf_rules & ~(<u32>1 << hook))
        self.replace(&self.state.chain[hook], new)
        if new != NULL:
            store_relaxed32(&n.nf_rules, n.nf_rules | <u32>1 << hook)
        self.kept[hook] = rows

    def publish_wants(self, rules):
        """Say which packets Python hooks asked for: rules whose verdict is a mask of hooks."""
        cdef list rows = list(rules)
        self.replace(&self.state.want, self.build(rows, 0, False))
        self.kept["want"] = rows

    def tap(self, u32 hook, SkBuff skb not None, u32 iif=0):
        """Show a packet to those who capture at a hook; ``iif`` is the device it came in by, 0 for none."""
        cdef net *n = self.net_object.ptr
        if load_relaxed32(&n.nf_rules) >> (NF_TAP_SHIFT + hook) & 1:
            nf_tap(n, hook, skb.peek(), iif)

    def run(self, u32 hook, SkBuff skb not None, u32 iif=0, u32 oif=0):
        """Ask the rules of a hook about a packet; where its data stands see ``nf_rules_run``."""
        return nf_rules_run(self.net_object.ptr, hook, skb.peek(), iif, oif)

    def seen(self, u32 hook, SkBuff skb not None):
        """Give what a program sees of a packet at a hook: (bytes, ``len``)."""
        cdef nf_view view
        nf_look(skb.peek(), NF_FRAME_HOOKS >> hook & 1, &view)
        return <bytes>view.data[:view.headlen], view.len
