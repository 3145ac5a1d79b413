# The settings that nixprov pushes, typed, so that a mistake stops at evaluation; all defaults are here and nowhere else.
{ config, lib, ... }:

let
  inherit (lib) mkOption types;
  cfg = config.services.nixprov;

  number =
    type: default: description:
    mkOption {
      inherit type default description;
    };
  amount = number types.ints.unsigned;
  positive = number types.ints.positive;
  percent = number (types.ints.between 1 100);
  weight = number (types.ints.between 1 10000);

  runner = types.submodule {
    options = {
      id = mkOption {
        type = types.int;
        description = "GitLab's id of the runner.";
      };
      tokenVersion = mkOption {
        type = types.str;
        description = "Changes whenever another token was pushed, so that the unit restarts; says nothing of the token.";
      };
      description = mkOption {
        type = types.str;
        description = "The runner's name in its own log and in the job's first lines.";
      };
      concurrent = mkOption {
        type = types.ints.positive;
        default = 2;
        description = "How many jobs the runner works on at once.";
      };
      image = mkOption {
        type = types.nullOr types.str;
        default = null;
        description = "The image of jobs that name none; null is the image made of links into the host's store.";
      };
      allowedImages = mkOption {
        type = types.listOf types.str;
        default = [ ];
        description = "Patterns of the images that jobs and their services may name; none is any.";
      };
      memory = mkOption {
        type = types.nullOr (types.strMatching "[1-9][0-9]*[bkmgBKMG]");
        default = null;
        description = "Memory of one container, as 4g; builds are the daemon's and not counted.";
      };
      cpus = mkOption {
        type = types.nullOr (types.strMatching "[0-9]+(\\.[0-9]+)?");
        default = null;
        description = "Processors of one container, as 1.5.";
      };
      noNewPrivileges = mkOption {
        type = types.bool;
        default = true;
        description = "Whether programs in a job's containers can gain no rights; false where an image needs sudo or su.";
      };
      capAdd = mkOption {
        type = types.listOf (
          types.enum [
            "AUDIT_WRITE"
            "IPC_LOCK"
            "MKNOD"
            "NET_ADMIN"
            "NET_RAW"
            "SYS_NICE"
            "SYS_PTRACE"
          ]
        );
        default = [ ];
        description = "Capabilities of a job's own container beyond those that every container has; none that reaches out of it.";
      };
      environment = mkOption {
        type = types.attrsOf types.str;
        default = { };
        description = "More variables for every job. They are readable in the store: no secrets.";
      };
      stopTimeout = mkOption {
        type = types.ints.positive;
        default = 3600;
        description = "Seconds that running jobs get to finish when the unit stops.";
      };
    };
  };
in
{
  options.services.nixprov = {
    revision = mkOption {
      type = types.str;
      description = "A digest of all that was pushed: tells whether a system was built from it.";
    };
    gitlabUrl = mkOption {
      type = types.str;
      description = "The GitLab that the runners poll.";
    };
    runners = mkOption {
      type = types.attrsOf runner;
      default = { };
      description = "One unit each, nixprov-runner-NAME.service.";
    };
    limits = {
      buildTimeout = amount 21600 "Seconds that one build may take, 0: no limit; a job may ask for less, not for more.";
      buildSilence = amount 7200 "Seconds that one build may take without a word, 0: no limit.";
      buildLogMiB = amount 128 "MiB of output after which a build is ended, 0: no limit.";
      buildsPerClient = amount 0 "Derivations that one command of a job builds at once; 0: as the host's max-jobs, or as many as there are processors.";
      connectionsPerJob = positive 64 "Connections to Nix that one container may have at once.";
      cpuWeight = weight 50 "Processor time of the builds against the host's other work, which has 100.";
      ioWeight = weight 50 "The same of the disk.";
      memoryPercent = percent 90 "Share of the memory that the builds may take together.";
      tasks = positive 16384 "Processes and threads of all builds together.";
      tasksPerContainer = positive 2048 "Processes and threads of one container of a job; in our podman, the host's Docker has no such limit.";
    };
    cache = {
      keepDays = positive 14 "Days for which what a job built is held from the garbage collector.";
      minFreePercent = percent 5 "Share of the store's disk below which a running build makes Nix collect garbage.";
      maxFreePercent = percent 10 "Share that is then to be free; the timer collects below it too, between jobs.";
    };
    engine = mkOption {
      type = types.enum [
        "podman"
        "docker"
      ];
      default = "podman";
      description = "What jobs run in: a podman of ours, or the host's Docker (virtualisation.docker.enable).";
    };
    trust = mkOption {
      type = types.enum [
        "none"
        "plain"
      ];
      default = "none";
      description = "Whom Nix takes a job for; plain: jobs get the host's own daemon, which takes root in a container for root of the host.";
    };
    acceptedAdvisories = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "Ways to root for jobs that the host's Nix has and its owner accepts, by their ids (advisories.toml).";
    };
    shareSocket = mkOption {
      type = types.bool;
      default = false;
      description = "Whether the host's users may use the jobs' socket too, as agents of another CI on the same machine.";
    };
    jobPackages = mkOption {
      type = types.listOf types.package;
      default = [ ];
      description = "More packages on the PATH of jobs, from the host's store.";
    };
  };

  config.assertions = [
    {
      assertion = cfg.cache.minFreePercent <= cfg.cache.maxFreePercent;
      message = "nixprov: cache.minFreePercent (${toString cfg.cache.minFreePercent}) is above cache.maxFreePercent (${toString cfg.cache.maxFreePercent})";
    }
  ];
}
