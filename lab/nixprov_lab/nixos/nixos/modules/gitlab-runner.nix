# services.gitlab-runner: the options of NixOS' own module, so that a configuration with them can be read.
# The unit runs a given configFile; the registration of `services` is not imitated.
{
  config,
  lib,
  pkgs,
  ...
}: let
  inherit (lib) mkOption types;
  inherit (import ./declare.nix lib) option optional flag;
  cfg = config.services.gitlab-runner;
  free = option types.anything null "As in NixOS.";
  service =
    lib.genAttrs [
      "authenticationTokenConfigFile"
      "registrationConfigFile"
      "description"
      "cloneUrl"
      "buildsDir"
      "dockerImage"
      "dockerPullPolicy"
      "outputLimit"
      "preGetSourcesScript"
      "postGetSourcesScript"
      "preBuildScript"
      "postBuildScript"
      "registrationFlags"
      "environmentVariables"
      "dockerVolumes"
      "dockerExtraHosts"
      "dockerAllowedImages"
      "dockerAllowedServices"
      "dockerAllowedPrivilegedServices"
      "dockerDisableCache"
      "dockerPrivileged"
      "dockerServicesPrivileged"
      "tagList"
      "runUntagged"
      "maximumTimeout"
      "protected"
      "limit"
      "requestConcurrency"
      "debugTraceDisabled"
    ] (_: free)
    // {
      executor = option types.str "docker" "The executor.";
    };
in {
  options.services.gitlab-runner = {
    enable = lib.mkEnableOption "Gitlab Runner";
    configFile = optional types.path "A config.toml.";
    settings = option (types.attrsOf types.anything) {} "Global settings.";
    gracefulTermination = flag false "Whether jobs are finished before stopping.";
    gracefulTimeout = option types.str "infinity" "For how long.";
    package = option types.package pkgs.gitlab-runner "The runner.";
    extraPackages = option (types.listOf types.package) [] "Packages in its PATH.";
    clear-docker-cache = free;
    services = mkOption {
      type = types.attrsOf (types.submodule {options = service;});
      default = {};
      description = "Runners.";
    };
  };
  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.services == {};
        message = "services.gitlab-runner.services: registering runners is not supported by the stand-in NixOS: use configFile";
      }
    ];
    environment.systemPackages = [cfg.package];
    systemd.services.gitlab-runner = {
      description = "Gitlab Runner";
      documentation = ["https://docs.gitlab.com/runner/"];
      after = ["network.target"];
      wantedBy = ["multi-user.target"];
      path = cfg.extraPackages;
      reloadIfChanged = true;
      environment.HOME = "/var/lib/gitlab-runner";
      serviceConfig =
        {
          DynamicUser = true;
          StateDirectory = "gitlab-runner";
          ExecStart = "${cfg.package}/bin/gitlab-runner run --config ${toString cfg.configFile} --working-directory /var/lib/gitlab-runner";
          ExecReload = "/bin/kill -HUP $MAINPID";
        }
        // lib.optionalAttrs cfg.gracefulTermination {
          TimeoutStopSec = cfg.gracefulTimeout;
          KillSignal = "SIGQUIT";
          KillMode = "process";
        };
    };
  };
}
