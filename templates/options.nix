# The settings that nixprov pushes, typed, so that a mistake stops at evaluation.
{ lib, ... }:

let
  inherit (lib) mkOption types;

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
        type = types.int;
        default = 2;
        description = "How many jobs the runner works on at once.";
      };
      image = mkOption {
        type = types.nullOr types.str;
        default = null;
        description = "The image of jobs that name none; null is the image made of links into the host's store.";
      };
      environment = mkOption {
        type = types.attrsOf types.str;
        default = { };
        description = "More variables for every job. They are readable in the store: no secrets.";
      };
      stopTimeout = mkOption {
        type = types.int;
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
    jobPackages = mkOption {
      type = types.listOf types.package;
      default = [ ];
      description = "More packages on the PATH of jobs, from the host's store.";
    };
  };
}
