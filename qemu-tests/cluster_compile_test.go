package scenarios

import (
	"fmt"
	"strings"
	"testing"

	"viver.lan/qemu-tests/harness"
)

// compileProject has as many small files as a program that is worth the trouble; the
// first go to the machines that the shell's arguments name, one each, the others where
// the scheduler likes.
const compileProject = `set -e
mkdir /root/project; cd /root/project
for i in $(seq 24); do
	for j in $(seq 40); do echo "int f${i}_$j(int a, int b) { int s = 0; for (int i = 0; i < a; i++) s += i * b ^ $j; return s; }"; done >f$i.c
done
echo 'int f24_1(int, int); int main(void) { return f24_1(0, 0); }' >main.c
printf 'program: $(patsubst %%.c,%%.o,$(wildcard *.c))\n\tgcc -o $@ $^\n%%.o: %%.c\n\t$(to_$*) gcc -O2 -c -o $@ $<\n' >Makefile
i=1; for machine; do echo "to_f$i = ICECC_PREFERRED_HOST=$machine" >>Makefile; i=$((i + 1)); done`

// compileOverAll builds a program on the last of the machines, as somebody who has logged
// in there: all the others have a share in it.
func compileOverAll(t *testing.T, vms []*harness.VM) {
	const listed = `exec 3<>/dev/tcp/$(ps -o args= -C iceccd | sed -n '1s/.*--scheduler-host \([^ ]*\).*/\1/p')/8766 && printf 'listcs\nquit\n' >&3 && cat <&3`
	builder := vms[len(vms)-1]
	eventually(t, builder, "all machines to be known to one scheduler", func() bool {
		text, err := builder.Run(t.Context(), "bash", "-c", listed)
		return err == nil && strings.Count(text, ":10245)") == len(vms)
	})
	argv := []string{"bash", "-c", compileProject, "bash"}
	for _, vm := range vms[:len(vms)-1] {
		argv = append(argv, ready(t, vm))
	}
	run(t, builder, argv...)
	run(t, builder, "env", "HOME=/root", "bash", "-lec", `cd /root/project; ICECC_DEBUG=debug ICECC_LOGFILE=$PWD/log make -j"$(cat /run/viver-compile/jobs)"; ./program`)
	log := run(t, builder, "cat", "/root/project/log")
	shares := fmt.Sprintf("%d on %s itself", strings.Count(log, "building myself"), builder.Name())
	for _, vm := range vms[:len(vms)-1] {
		jobs := strings.Count(log, "Have to use host "+whereIs(t, vm).Lease.Address.Addr().String()+":")
		if jobs == 0 {
			t.Errorf("%s compiled nothing", vm.Name())
		}
		shares += fmt.Sprintf(", %d on %s", jobs, vm.Name())
	}
	t.Logf("files compiled: %s", shares)
	run(t, builder, "rm", "-r", "/root/project")
}
