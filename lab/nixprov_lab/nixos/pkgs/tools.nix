# Packages of the lab's own: the runner, and packages for tests.
{pkgs, ...}: let
  # A real gitlab-runner, when the lab was started with one. Pure evaluation cannot see it and takes the stand-in.
  real = /opt/lab/gitlab-runner;
  script = ../guest/gitlab-runner.py;
  # The stand-in's own version.
  said = builtins.match ".*\nVERSION: Final = \"([^\"]*)\".*" (builtins.readFile ../guest/runner/identity.py);
  version =
    if said == null
    then throw "pkgs.gitlab-runner: no version in runner/identity.py"
    else builtins.head said;
in {
  gitlab-runner =
    if builtins.pathExists real
    then
      pkgs.runCommand "gitlab-runner" {meta.mainProgram = "gitlab-runner";} ''
        mkdir -p $out/bin
        cp ${builtins.path {
          path = real;
          name = "gitlab-runner-binary";
        }} $out/bin/gitlab-runner
        chmod +x $out/bin/gitlab-runner
      ''
    else if builtins.pathExists script
    then
      pkgs.runCommand "gitlab-runner-${version}" {meta.mainProgram = "gitlab-runner";} ''
        mkdir -p $out/bin
        printf '%s\n' '#!${pkgs.runtimeShell}' 'exec ${pkgs.python3}/bin/python3 -B ${../guest}/gitlab-runner.py "$@"' > $out/bin/gitlab-runner
        chmod +x $out/bin/gitlab-runner
      ''
    else throw "pkgs.gitlab-runner: the lab's tree has neither /opt/lab/gitlab-runner nor the stand-in's gitlab-runner.py";

  hello = pkgs.writeShellScriptBin "hello" "echo 'Hello, world!'";
}
