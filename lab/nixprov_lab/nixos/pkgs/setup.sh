# The build environment of runCommand and of nix-shell: PATH from the inputs, nothing else of stdenv's phases.
PATH=
for _input in ${nativeBuildInputs-} ${buildInputs-} ${propagatedBuildInputs-} ${initialPath-}; do
    [ ! -d "$_input/bin" ] || PATH=${PATH:+$PATH:}$_input/bin
done
unset _input
export PATH
export SHELL
